# Everything in two regions, neither of which needs the other, and what the account has once.

locals {
  artifacts_dir   = startswith(var.artifacts_dir, "/") ? var.artifacts_dir : "${path.root}/${var.artifacts_dir}"
  definitions_dir = "${path.module}/../statemachines"

  kms_key_arns = merge({ home = null, recovery = null, snapshots = null }, var.kms_key_arns)

  alarm_topic_arns = {
    for region in [var.home_region, var.recovery_region] :
    region => [for arn in var.alarm_topic_arns : arn if split(":", arn)[3] == region]
  }
}

module "home" {
  source = "./modules/region"

  name_prefix           = var.name_prefix
  artifacts_dir         = local.artifacts_dir
  definitions_dir       = local.definitions_dir
  lambda                = var.lambda
  observability         = var.observability
  resume_window_hours   = var.resume_window_hours
  job_retention_in_days = var.job_retention_in_days
  log_retention_in_days = var.log_retention_in_days
  storage_kms_key_arn   = local.kms_key_arns.home
  snapshot_kms_key_arns = local.kms_key_arns.snapshots
  archive_bucket_names  = var.archive_bucket_names
  archive_kms_key_arns  = var.archive_kms_key_arns
  image_bucket_names    = var.image_bucket_names
  restore_bucket_names  = var.restore_bucket_names
  backups               = var.backups
  trusted_role_arns     = var.trusted_role_arns
  permissions_boundary  = var.permissions_boundary
  alarm_topic_arns      = local.alarm_topic_arns[var.home_region]
  force_destroy         = var.force_destroy
  tags                  = var.tags
}

module "recovery" {
  source    = "./modules/region"
  providers = { aws = aws.recovery }

  name_prefix           = var.name_prefix
  artifacts_dir         = local.artifacts_dir
  definitions_dir       = local.definitions_dir
  lambda                = var.lambda
  observability         = var.observability
  resume_window_hours   = var.resume_window_hours
  job_retention_in_days = var.job_retention_in_days
  log_retention_in_days = var.log_retention_in_days
  storage_kms_key_arn   = local.kms_key_arns.recovery
  snapshot_kms_key_arns = local.kms_key_arns.snapshots
  archive_bucket_names  = var.archive_bucket_names
  archive_kms_key_arns  = var.archive_kms_key_arns
  image_bucket_names    = var.image_bucket_names
  restore_bucket_names  = var.restore_bucket_names
  backups               = var.backups
  trusted_role_arns     = var.trusted_role_arns
  permissions_boundary  = var.permissions_boundary
  alarm_topic_arns      = local.alarm_topic_arns[var.recovery_region]
  force_destroy         = var.force_destroy
  tags                  = var.tags
}

module "account" {
  source = "./modules/account"

  name_prefix          = var.name_prefix
  regions              = [var.home_region, var.recovery_region]
  archive_bucket_names = var.archive_bucket_names
  archive_kms_key_arns = var.archive_kms_key_arns
  tags                 = var.tags
}
