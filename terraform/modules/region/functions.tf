locals {
  functions = {
    plan_transfer = {
      description     = "Plans the block ranges of a transfer and starts its target snapshots"
      memory_mb       = 1769 # the manifests of a chain: some 7 MiB for each archive of the largest volume
      timeout_seconds = 900  # a dry run counts what is to be moved, in several calls if need be
    }
    unpack_image = {
      description     = "Decompresses a disk image so that many workers can read it"
      memory_mb       = 1769 # one whole vCPU: decompression is the work
      timeout_seconds = 900
    }
    inspect_snapshots = {
      description     = "Counts what snapshots hold and compares the ways to copy and to keep them"
      memory_mb       = 1769 # one whole vCPU: it may have to read every block
      timeout_seconds = 900
    }
    move_blocks = {
      description     = "Moves the blocks of one range from the source to every target"
      memory_mb       = 1769 # one whole vCPU: checksums are the work
      timeout_seconds = 900
    }
    complete_transfer = {
      description     = "Proves that every block arrived and seals the target snapshots"
      memory_mb       = 1769
      timeout_seconds = 900
    }
    check_targets = {
      description     = "Tells whether the sealed targets are completed"
      memory_mb       = 512
      timeout_seconds = 300 # a hundred targets may be a hundred roles to assume, and a region may not answer
    }
    write_receipt = {
      description     = "Writes the receipt of a finished job"
      memory_mb       = 512
      timeout_seconds = 300 # as check_targets, and targets may show as pending once more
    }
    plan_verification = {
      description     = "Opens an archive and plans how it is verified"
      memory_mb       = 1769 # as Plan transfer, and of two chains
      timeout_seconds = 300
    }
    verify_blocks = {
      description     = "Checks what an archive has of one range"
      memory_mb       = 1769 # one whole vCPU: checksums and decompression are the work
      timeout_seconds = 900
    }
    conclude_verification = {
      description     = "Writes down what the verification of an archive has found"
      memory_mb       = 512
      timeout_seconds = 900 # 10,000 ranges have as many objects
    }
    plan_backup = {
      description     = "Looks at what asks for backups by its tags"
      memory_mb       = 1769 # all instances and volumes that do are in memory at once
      timeout_seconds = 900
    }
    take_backups = {
      description     = "Makes backups by tag, each once in its slot"
      memory_mb       = 512
      timeout_seconds = 900 # EC2 takes some five CreateSnapshots a second of the whole account
    }
    plan_replication = {
      description     = "Looks at backups that want copies and at the copies that there are"
      memory_mb       = 1769 # as plan_expiry, and of several Regions
      timeout_seconds = 900
    }
    copy_backups = {
      description     = "Begins copies of backups and notes those that are complete"
      memory_mb       = 512
      timeout_seconds = 900
    }
    plan_expiry = {
      description     = "Looks at all backups by tag and decides which may go"
      memory_mb       = 1769 # a hundred thousand snapshots are 160 MB of values, beside a page of answers
      timeout_seconds = 900
    }
    mark_expired = {
      description     = "Marks backups that are due"
      memory_mb       = 512
      timeout_seconds = 900 # EC2 takes some ten changes a second of the whole account
    }
    delete_expired = {
      description     = "Deletes backups that are due"
      memory_mb       = 512
      timeout_seconds = 900
    }
    write_report = {
      description     = "Writes the report of a run that looked after backups"
      memory_mb       = 1769
      timeout_seconds = 300
    }
    sweep_jobs = {
      description     = "Deletes pending targets and plans of jobs that were not resumed in time"
      memory_mb       = 512
      timeout_seconds = 300
      environment = {
        BLOCKFERRY_RESUME_WINDOW_HOURS = tostring(var.resume_window_hours)
        # How the ARN of every execution of this deployment begins: whose records the sweeper may believe.
        BLOCKFERRY_EXECUTIONS = "arn:${local.partition}:states:${local.region}:${local.account}:execution:${var.name_prefix}-"
      }
    }
  }
}

locals {
  # Functions that go by what the deployment says of backups.
  told_of_backups = ["copy_backups", "delete_expired", "mark_expired", "plan_backup", "plan_expiry", "plan_replication"]
}

module "function" {
  source   = "../function"
  for_each = local.functions

  name            = "${var.name_prefix}-${replace(each.key, "_", "-")}"
  role_name       = "${var.name_prefix}-${replace(each.key, "_", "-")}-${local.region}"
  description     = each.value.description
  source_path     = "${var.artifacts_dir}/functions/${each.key}.zip"
  runtime         = var.lambda.runtime
  architecture    = var.lambda.architecture
  memory_mb       = each.value.memory_mb
  timeout_seconds = each.value.timeout_seconds
  layer_arns      = [aws_lambda_layer_version.core.arn]
  policy_json     = data.aws_iam_policy_document.function[each.key].json

  environment = merge(
    {
      BLOCKFERRY_NAME_PREFIX  = var.name_prefix
      BLOCKFERRY_WORK_BUCKET  = aws_s3_bucket.work.id
      POWERTOOLS_LOG_LEVEL    = var.lambda.log_level
      POWERTOOLS_SERVICE_NAME = each.key
    },
    try(each.value.environment, {}),
    contains(local.told_of_backups, each.key) ? local.backup_settings : {},
  )

  tracing               = var.observability.tracing
  log_retention_in_days = var.log_retention_in_days
  kms_key_arn           = var.storage_kms_key_arn
  permissions_boundary  = var.permissions_boundary
  tags                  = local.tags
}
