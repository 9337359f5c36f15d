# The role that another account creates, so that a deployment reads its snapshots (source side), makes
# snapshots in it (target side), keeps archives in its buckets (archive side) or several of these. Its ARN and
# external id go into the source, target or archive of a job, and its ARN into trusted_role_arns of the deployment.

data "aws_partition" "current" {}

locals {
  partition = data.aws_partition.current.partition

  job_tag       = "blockferry:job-id"
  execution_tag = "blockferry:execution"
  proof_tag     = "blockferry:proved-snapshot-id"

  # Snapshot ARNs have no account.
  source_snapshots = [for region in try(sort(distinct(var.source_side.regions)), []) : "arn:${local.partition}:ec2:${region}::snapshot/*"]
  target_snapshots = [for region in try(sort(distinct(var.target_side.regions)), []) : "arn:${local.partition}:ec2:${region}::snapshot/*"]
  source_keys      = try(var.source_side.kms_key_arns, [])
  target_keys      = try(var.target_side.kms_key_arns, [])
  required_tag     = try(var.source_side.required_tag, null)
  image_buckets    = try(sort(var.source_side.image_bucket_names), [])

  # Names of an archive's objects are fixed, so that nothing else of a bucket can be written, read or deleted.
  archive_buckets = try(sort(distinct(var.archive_side.bucket_names)), [])
  archive_keys    = try(sort(var.archive_side.kms_key_arns), [])
  archive_via     = [for region in try(sort(distinct(var.archive_side.regions)), []) : "s3.${region}.amazonaws.com"]
  archive_names   = ["index/*.idx", "manifest.json", "segments/*.zst", "unfinished.json"]

  # EBS calls KMS under the name of EC2.
  source_via = [for region in try(sort(distinct(var.source_side.regions)), []) : "ec2.${region}.amazonaws.com"]
  images_via = [for region in try(sort(distinct(var.source_side.regions)), []) : "s3.${region}.amazonaws.com"]
  target_via = [for region in try(sort(distinct(var.target_side.regions)), []) : "ec2.${region}.amazonaws.com"]
}

data "aws_iam_policy_document" "trust" {
  statement {
    sid     = "FunctionsOfTheDeployment"
    actions = ["sts:AssumeRole"]

    # The account, narrowed to role names below: a role named here as principal would be trusted by its
    # unique id, and no more after it was made anew.
    principals {
      type        = "AWS"
      identifiers = ["arn:${local.partition}:iam::${var.trusted.account_id}:root"]
    }

    condition {
      test     = "ArnLike"
      variable = "aws:PrincipalArn"
      values   = ["arn:${local.partition}:iam::${var.trusted.account_id}:role/${try(var.trusted.name_prefix, "blockferry")}-*"]
    }

    # Confused deputy: the deployment's account may work for others, too. It must name the id that this
    # account chose. (aws:SourceAccount is no help here: it is set for calls of AWS services only.)
    condition {
      test     = "StringEquals"
      variable = "sts:ExternalId"
      values   = [var.external_id]
    }
  }
}

data "aws_iam_policy_document" "this" {
  dynamic "statement" {
    for_each = var.source_side == null && var.target_side == null ? [] : ["snapshots"]

    content {
      sid     = "Describe"
      actions = concat(["ec2:DescribeSnapshots"], var.target_side == null ? [] : ["ec2:GetEbsEncryptionByDefault"])
      # EC2 has no resource level for either.
      resources = ["*"]
    }
  }

  dynamic "statement" {
    for_each = length(local.archive_buckets) > 0 ? [local.archive_buckets] : []

    content {
      # Which Region a bucket is in, what is in an archive, and that an object is missing and not forbidden.
      sid       = "FindArchives"
      actions   = ["s3:ListBucket"]
      resources = [for name in statement.value : "arn:${local.partition}:s3:::${name}"]
    }
  }

  dynamic "statement" {
    for_each = length(local.archive_buckets) > 0 ? [local.archive_buckets] : []

    content {
      sid       = "ReadAndWriteArchives"
      actions   = ["s3:GetObject", "s3:PutObject", "s3:PutObjectTagging"]
      resources = flatten([for bucket in statement.value : [for name in local.archive_names : "arn:${local.partition}:s3:::${bucket}/*${name}"]])
    }
  }

  dynamic "statement" {
    for_each = length(local.archive_buckets) > 0 ? [local.archive_buckets] : []

    content {
      # What came out when an archive was verified stands in the tags of its manifest, beside those that it has.
      sid       = "ReadTagsOfManifests"
      actions   = ["s3:GetObjectTagging"]
      resources = [for bucket in statement.value : "arn:${local.partition}:s3:::${bucket}/*manifest.json"]
    }
  }

  dynamic "statement" {
    for_each = length(local.archive_buckets) > 0 ? [local.archive_buckets] : []

    content {
      # Of an archive that is not finished: a manifest is never deleted.
      sid       = "DeleteUnfinishedArchives"
      actions   = ["s3:DeleteObject"]
      resources = flatten([for bucket in statement.value : [for name in local.archive_names : "arn:${local.partition}:s3:::${bucket}/*${name}" if name != "manifest.json"]])
    }
  }

  dynamic "statement" {
    for_each = length(local.archive_keys) > 0 ? [local.archive_keys] : []

    content {
      sid       = "UseKeysOfArchivesThroughS3"
      actions   = ["kms:Decrypt", "kms:GenerateDataKey"]
      resources = statement.value

      condition {
        test     = "StringEquals"
        variable = "kms:ViaService"
        values   = local.archive_via
      }
    }
  }

  dynamic "statement" {
    for_each = length(local.image_buckets) > 0 ? [local.image_buckets] : []

    content {
      sid     = "ReadImages"
      actions = ["s3:GetObject", "s3:ListBucket"]
      # Listing tells a missing image from a forbidden one.
      resources = flatten([for name in statement.value : ["arn:${local.partition}:s3:::${name}", "arn:${local.partition}:s3:::${name}/*"]])
    }
  }

  dynamic "statement" {
    for_each = var.source_side == null ? [] : [var.source_side]

    content {
      sid       = "ReadSnapshots"
      actions   = ["ebs:GetSnapshotBlock", "ebs:ListChangedBlocks", "ebs:ListSnapshotBlocks"]
      resources = local.source_snapshots

      dynamic "condition" {
        for_each = local.required_tag == null ? [] : [local.required_tag]

        content {
          test     = "StringEquals"
          variable = "aws:ResourceTag/${condition.value.key}"
          values   = [condition.value.value]
        }
      }
    }
  }

  dynamic "statement" {
    for_each = length(local.source_keys) > 0 ? [local.source_keys] : []

    content {
      sid       = "ReadEncryptedSnapshots"
      actions   = ["kms:Decrypt", "kms:DescribeKey"]
      resources = statement.value

      condition {
        test     = "StringEquals"
        variable = "kms:ViaService"
        values   = concat(local.source_via, length(local.image_buckets) > 0 ? local.images_via : [])
      }
    }
  }

  dynamic "statement" {
    for_each = var.target_side == null ? [] : ["target"]

    content {
      sid       = "StartSnapshotsWithTheJobsTags"
      actions   = ["ebs:StartSnapshot"]
      resources = local.target_snapshots

      dynamic "condition" {
        for_each = [local.job_tag, local.execution_tag]

        content {
          test     = "Null"
          variable = "aws:RequestTag/${condition.value}"
          values   = ["false"]
        }
      }
    }
  }

  dynamic "statement" {
    for_each = var.target_side == null ? [] : ["target"]

    content {
      # StartSnapshot checks it before the tag is there, so it cannot ask for the tag.
      sid       = "TagStartedSnapshots"
      actions   = ["ec2:CreateTags"]
      resources = local.target_snapshots
    }
  }

  dynamic "statement" {
    for_each = var.target_side == null ? [] : ["target"]

    content {
      sid       = "ChangeSnapshotsOfJobs"
      actions   = ["ebs:CompleteSnapshot", "ebs:PutSnapshotBlock"]
      resources = local.target_snapshots

      condition {
        test     = "Null"
        variable = "aws:ResourceTag/${local.job_tag}"
        values   = ["false"]
      }
    }
  }

  dynamic "statement" {
    for_each = var.target_side == null ? [] : ["target"]

    content {
      sid       = "DeleteWhatIsNotProved"
      actions   = ["ec2:DeleteSnapshot"]
      resources = local.target_snapshots

      condition {
        test     = "Null"
        variable = "aws:ResourceTag/${local.execution_tag}"
        values   = ["false"]
      }

      # Whatever the other account's records say: a copy that a job has proved is never deleted.
      condition {
        test     = "Null"
        variable = "aws:ResourceTag/${local.proof_tag}"
        values   = ["true"]
      }
    }
  }

  dynamic "statement" {
    for_each = length(local.target_keys) > 0 ? [local.target_keys] : []

    content {
      sid = "WriteEncryptedSnapshots"
      actions = [
        "kms:Decrypt",
        "kms:DescribeKey",
        "kms:Encrypt",
        "kms:GenerateDataKey",
        "kms:GenerateDataKeyWithoutPlaintext",
        "kms:ReEncryptFrom",
        "kms:ReEncryptTo",
      ]
      resources = statement.value

      condition {
        test     = "StringEquals"
        variable = "kms:ViaService"
        values   = local.target_via
      }
    }
  }

  dynamic "statement" {
    for_each = length(local.target_keys) > 0 ? [local.target_keys] : []

    content {
      sid       = "LetEbsKeepGrants"
      actions   = ["kms:CreateGrant"]
      resources = statement.value

      condition {
        test     = "StringEquals"
        variable = "kms:ViaService"
        values   = local.target_via
      }

      condition {
        test     = "Bool"
        variable = "kms:GrantIsForAWSResource"
        values   = ["true"]
      }
    }
  }
}

resource "aws_iam_role" "this" {
  name        = var.name
  description = "Lets deployment ${try(var.trusted.name_prefix, "blockferry")} of account ${var.trusted.account_id} work with snapshots and archives of this account"
  # A range of blocks takes up to 15 minutes; the functions chain roles, and chained sessions end after an
  # hour whatever stands here.
  max_session_duration = 3600
  assume_role_policy   = data.aws_iam_policy_document.trust.json
  permissions_boundary = var.permissions_boundary
  tags                 = merge(var.tags, { Project = "blockferry", ManagedBy = "terraform" })
}

resource "aws_iam_role_policy" "this" {
  name   = "snapshots"
  role   = aws_iam_role.this.id
  policy = data.aws_iam_policy_document.this.json
}
