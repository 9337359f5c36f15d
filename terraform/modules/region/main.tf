data "aws_caller_identity" "current" {}
data "aws_partition" "current" {}
data "aws_region" "current" {}

locals {
  account   = data.aws_caller_identity.current.account_id
  partition = data.aws_partition.current.partition
  region    = data.aws_region.current.id

  tags = merge(var.tags, { Project = "blockferry", ManagedBy = "terraform" })

  # ARNs of our own resources are composed from names: so a plan shows every policy in full, and a policy
  # can be there before the thing it names.
  bucket_names = {
    work    = "${var.name_prefix}-work-${local.account}-${local.region}"
    archive = "${var.name_prefix}-archive-${local.account}-${local.region}"
  }
  work_bucket_arn = "arn:${local.partition}:s3:::${local.bucket_names.work}"
  machine_names   = { for operation in keys(local.machine_functions) : operation => "${var.name_prefix}-${operation}" }

  layer_path = "${var.artifacts_dir}/layer-${var.lambda.runtime}-${var.lambda.architecture}.zip"
}

resource "aws_lambda_layer_version" "core" {
  layer_name               = "${var.name_prefix}-core"
  description              = "The blockferry package and its pinned dependencies"
  filename                 = local.layer_path
  source_code_hash         = fileexists(local.layer_path) ? filebase64sha256(local.layer_path) : null
  compatible_runtimes      = [var.lambda.runtime]
  compatible_architectures = [var.lambda.architecture]

  lifecycle {
    # A function in use must never name a layer version that is gone.
    create_before_destroy = true

    precondition {
      condition     = fileexists(local.layer_path)
      error_message = "The layer for ${var.lambda.runtime} on ${var.lambda.architecture} is missing at ${local.layer_path}. Run scripts/build for this runtime and architecture first: a plan never builds."
    }
  }
}
