# Copy: snapshot to snapshots, in other regions, accounts or under other keys.

module "copy" {
  source = "../state_machine"

  name            = local.machine_names.copy
  role_name       = "${local.machine_names.copy}-machine-${local.region}"
  definition_file = "${var.definitions_dir}/copy.asl.json"

  function_arns = {
    for name in ["plan_transfer", "move_blocks", "complete_transfer", "check_targets", "write_receipt"] :
    name => module.function[name].arn
  }

  work = {
    bucket_arn = local.work_bucket_arn
    prefix     = "jobs/"
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
