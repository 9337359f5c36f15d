# What is global in the account: the policies of people and pipelines who run jobs, and of those who upload or archive
# images from their own machines. Nobody has them until they are attached to a role or group.

data "aws_caller_identity" "current" {}
data "aws_partition" "current" {}

locals {
  account    = data.aws_caller_identity.current.account_id
  partition  = data.aws_partition.current.partition
  states_arn = { for region in var.regions : region => "arn:${local.partition}:states:${region}:${local.account}" }

  machine_arns   = sort([for arn in values(local.states_arn) : "${arn}:stateMachine:${var.name_prefix}-*"])
  execution_arns = sort([for arn in values(local.states_arn) : "${arn}:execution:${var.name_prefix}-*"])
  map_run_arns   = sort([for arn in values(local.states_arn) : "${arn}:mapRun:${var.name_prefix}-*"])
  work_buckets   = sort([for region in var.regions : "arn:${local.partition}:s3:::${var.name_prefix}-work-${local.account}-${region}"])

  job_tag       = "blockferry:job-id"
  execution_tag = "blockferry:execution"
  proof_tag     = "blockferry:proved-snapshot-id"

  # Snapshot ARNs have no account. An upload goes to any region, as its command says.
  snapshot_arns = ["arn:${local.partition}:ec2:*::snapshot/*"]
  snapshot_keys = ["arn:${local.partition}:kms:*:${local.account}:key/*"]

  archive_buckets = var.archive_bucket_names == null ? ["*"] : concat(["${var.name_prefix}-archive-${local.account}-*"], var.archive_bucket_names)
  archive_arns    = [for bucket in local.archive_buckets : "arn:${local.partition}:s3:::${bucket}"]
  archive_keys    = var.archive_kms_key_arns == null ? local.snapshot_keys : var.archive_kms_key_arns

  # Of an archive that is not finished. No archive has its manifest deleted.
  archive_drops  = ["index/*.idx", "segments/*.zst", "unfinished.json"]
  archive_stores = concat(local.archive_drops, ["manifest.json"])
}

data "aws_iam_policy_document" "operator" {
  statement {
    sid       = "StartJobs"
    actions   = ["states:DescribeStateMachine", "states:ListExecutions", "states:StartExecution"]
    resources = local.machine_arns
  }

  statement {
    sid = "FollowResumeAndStopJobs"
    actions = [
      "states:DescribeExecution",
      "states:GetExecutionHistory",
      "states:ListMapRuns",
      "states:RedriveExecution",
      "states:StopExecution",
    ]
    resources = local.execution_arns
  }

  statement {
    sid       = "FollowMapRuns"
    actions   = ["states:DescribeMapRun", "states:ListExecutions", "states:UpdateMapRun"]
    resources = local.map_run_arns
  }

  statement {
    sid     = "FindMachinesAndSnapshots"
    actions = ["ec2:DescribeSnapshots", "states:ListStateMachines"]
    # Neither action has a resource level.
    resources = ["*"]
  }

  statement {
    # How jobs ended only: a job's plan and digests are nobody's business but the functions'.
    sid     = "ReadReceipts"
    actions = ["s3:GetObject"]
    resources = flatten([
      for arn in local.work_buckets :
      ["${arn}/jobs/*/receipt.json", "${arn}/jobs/*/report.*", "${arn}/jobs/*/proved/targets.json"]
    ])
  }

  statement {
    sid       = "SeeWhatRuns"
    actions   = ["s3:GetObject"]
    resources = [for arn in local.work_buckets : "${arn}/running/*"]
  }

  statement {
    # How fast a job may go, and nothing else, is the operators' to write.
    sid       = "ChangeSpeeds"
    actions   = ["s3:DeleteObject", "s3:PutObject"]
    resources = [for arn in local.work_buckets : "${arn}/running/speeds/*"]
  }

  statement {
    sid       = "FindReceipts"
    actions   = ["s3:ListBucket"]
    resources = local.work_buckets

    condition {
      # IfExists: that an object is not there is told only to those who may list, and reading it has no prefix.
      test     = "StringLikeIfExists"
      variable = "s3:prefix"
      values   = ["jobs/*", "running/*"]
    }
  }
}

resource "aws_iam_policy" "operator" {
  name        = "${var.name_prefix}-operator"
  description = "Start, follow, resume and stop jobs of ${var.name_prefix}, and read their receipts"
  policy      = data.aws_iam_policy_document.operator.json
  tags        = merge(var.tags, { Project = "blockferry", ManagedBy = "terraform" })
}

# What `blockferry upload` calls: it runs with the credentials of whoever types it, not in a function.
data "aws_iam_policy_document" "uploader" {
  statement {
    sid     = "LookAtSnapshots"
    actions = ["ec2:DescribeSnapshots", "ec2:GetEbsEncryptionByDefault"]
    # Neither action has a resource level.
    resources = ["*"]
  }

  statement {
    sid       = "ReadParents"
    actions   = ["ebs:GetSnapshotBlock", "ebs:ListSnapshotBlocks"]
    resources = local.snapshot_arns
  }

  statement {
    sid       = "StartUploads"
    actions   = ["ebs:StartSnapshot"]
    resources = local.snapshot_arns

    condition {
      test     = "Null"
      variable = "aws:RequestTag/${local.execution_tag}"
      values   = ["false"]
    }
  }

  statement {
    # Without a condition: StartSnapshot checks it before the tag is there.
    sid       = "TagUploads"
    actions   = ["ec2:CreateTags"]
    resources = local.snapshot_arns
  }

  statement {
    sid       = "WriteUploads"
    actions   = ["ebs:CompleteSnapshot", "ebs:PutSnapshotBlock"]
    resources = local.snapshot_arns

    condition {
      test     = "Null"
      variable = "aws:ResourceTag/${local.execution_tag}"
      values   = ["false"]
    }

    # The targets of jobs are the functions' alone.
    condition {
      test     = "Null"
      variable = "aws:ResourceTag/${local.job_tag}"
      values   = ["true"]
    }
  }

  statement {
    sid       = "DeleteUnfinishedUploads"
    actions   = ["ec2:DeleteSnapshot"]
    resources = local.snapshot_arns

    condition {
      test     = "Null"
      variable = "aws:ResourceTag/${local.execution_tag}"
      values   = ["false"]
    }

    dynamic "condition" {
      for_each = [local.job_tag, local.proof_tag]

      content {
        test     = "Null"
        variable = "aws:ResourceTag/${condition.value}"
        values   = ["true"]
      }
    }
  }

  statement {
    # EBS user guide, permissions for the direct APIs. Each key's own policy has to allow it, too.
    sid = "UseKeysThroughEbs"
    actions = [
      "kms:Decrypt",
      "kms:DescribeKey",
      "kms:Encrypt",
      "kms:GenerateDataKey",
      "kms:GenerateDataKeyWithoutPlaintext",
      "kms:ReEncryptFrom",
      "kms:ReEncryptTo",
    ]
    resources = local.snapshot_keys

    condition {
      test     = "StringLike"
      variable = "kms:ViaService"
      # EBS calls KMS under the name of EC2.
      values = ["ec2.*.amazonaws.com"]
    }
  }

  statement {
    sid       = "LetEbsKeepGrants"
    actions   = ["kms:CreateGrant"]
    resources = local.snapshot_keys

    condition {
      test     = "StringLike"
      variable = "kms:ViaService"
      values   = ["ec2.*.amazonaws.com"]
    }

    condition {
      test     = "Bool"
      variable = "kms:GrantIsForAWSResource"
      values   = ["true"]
    }
  }
}

resource "aws_iam_policy" "uploader" {
  name        = "${var.name_prefix}-uploader"
  description = "Make snapshots of disk images with the command blockferry upload"
  policy      = data.aws_iam_policy_document.uploader.json
  tags        = merge(var.tags, { Project = "blockferry", ManagedBy = "terraform" })
}

# What `blockferry archive` calls for an image on a machine, and `blockferry discard`.
data "aws_iam_policy_document" "archiver" {
  statement {
    # Which Region a bucket is in, what is in an archive, and that an object is missing and not forbidden.
    sid       = "FindArchives"
    actions   = ["s3:ListBucket"]
    resources = local.archive_arns

    condition {
      test     = "StringEquals"
      variable = "aws:ResourceAccount"
      values   = [local.account]
    }
  }

  statement {
    # Of bases manifests and indexes are read; claims are, too. No block of an archive is.
    sid       = "ReadManifestsAndIndexes"
    actions   = ["s3:GetObject"]
    resources = flatten([for arn in local.archive_arns : [for name in local.archive_stores : "${arn}/*${name}" if !startswith(name, "segments/")]])

    condition {
      test     = "StringEquals"
      variable = "aws:ResourceAccount"
      values   = [local.account]
    }
  }

  statement {
    sid       = "WriteArchives"
    actions   = ["s3:PutObject", "s3:PutObjectTagging"]
    resources = flatten([for arn in local.archive_arns : [for name in local.archive_stores : "${arn}/*${name}"]])

    condition {
      test     = "StringEquals"
      variable = "aws:ResourceAccount"
      values   = [local.account]
    }
  }

  statement {
    sid       = "DeleteUnfinishedArchives"
    actions   = ["s3:DeleteObject"]
    resources = flatten([for arn in local.archive_arns : [for name in local.archive_drops : "${arn}/*${name}"]])

    condition {
      test     = "StringEquals"
      variable = "aws:ResourceAccount"
      values   = [local.account]
    }
  }

  dynamic "statement" {
    for_each = length(local.archive_keys) > 0 ? [local.archive_keys] : []

    content {
      sid       = "UseKeysOfArchivesThroughS3"
      actions   = ["kms:Decrypt", "kms:GenerateDataKey"]
      resources = statement.value

      condition {
        test     = "StringLike"
        variable = "kms:ViaService"
        values   = ["s3.*.amazonaws.com"]
      }
    }
  }
}

resource "aws_iam_policy" "archiver" {
  name        = "${var.name_prefix}-archiver"
  description = "Archive disk images with the command blockferry archive, and discard what it left"
  policy      = data.aws_iam_policy_document.archiver.json
  tags        = merge(var.tags, { Project = "blockferry", ManagedBy = "terraform" })
}
