# The operations: what each state machine is for stands in its definition.

locals {
  transfer_functions = ["plan_transfer", "move_blocks", "complete_transfer", "check_targets", "write_receipt"]

  # Operation => the functions that its definition calls.
  machine_functions = {
    archive   = concat(local.transfer_functions, ["unpack_image"])
    backup    = ["plan_backup", "take_backups", "write_report"]
    copy      = local.transfer_functions
    expire    = ["plan_expiry", "mark_expired", "delete_expired", "write_report"]
    fanout    = concat(local.transfer_functions, ["unpack_image"])
    inspect   = ["inspect_snapshots"]
    replicate = ["plan_replication", "copy_backups", "write_report"]
    restore   = concat(local.transfer_functions, ["unpack_image"])
    sync      = local.transfer_functions
    verify    = ["plan_verification", "verify_blocks", "conclude_verification"]
  }

  # What follows `blockferry <operation>` on a command line.
  start_arguments = {
    archive   = "SNAPSHOT --to s3://BUCKET/PREFIX --wait"
    backup    = "--dry-run"
    copy      = "SNAPSHOT --to REGION --wait"
    expire    = "--dry-run"
    fanout    = "s3://BUCKET/KEY --to REGION --wait"
    inspect   = "SNAPSHOT"
    replicate = "--dry-run"
    restore   = "MANIFEST --to REGION --wait"
    sync      = "SNAPSHOT --follow --to REGION --wait"
    verify    = "MANIFEST --wait"
  }
}

module "machine" {
  source   = "../state_machine"
  for_each = local.machine_functions

  name            = local.machine_names[each.key]
  role_name       = "${local.machine_names[each.key]}-machine-${local.region}"
  definition_file = "${var.definitions_dir}/${each.key}.asl.json"
  function_arns   = { for name in each.value : name => module.function[name].arn }

  work = {
    bucket_arn = local.work_bucket_arn
    prefix     = "jobs/${each.key}/"
  }

  log_level             = var.observability.state_machine_log_level
  log_retention_in_days = var.log_retention_in_days
  tracing               = var.observability.tracing
  alarms                = var.observability.alarms
  alarm_topic_arns      = var.alarm_topic_arns
  kms_key_arn           = var.storage_kms_key_arn
  permissions_boundary  = var.permissions_boundary
  tags                  = local.tags
}
