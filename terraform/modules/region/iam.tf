# What each function may call. The same actions are declared in functions/<name>/permissions.json, and
# tests/declared.tftest.hcl holds the two against each other, both ways.

locals {
  job_tag = "blockferry:job-id"

  # Snapshot ARNs have no account. The region is a wildcard because a job names the regions of its source and
  # targets itself, and one function reads the one and writes the other.
  snapshot_arns = ["arn:${local.partition}:ec2:*::snapshot/*"]
  job_objects   = ["${local.work_bucket_arn}/jobs/*"]

  # Through EBS a principal may use every key that the key's own policy gives to this account, or only the
  # named ones. The region is a wildcard for the same reason as above.
  snapshot_keys = var.snapshot_kms_key_arns == null ? ["arn:${local.partition}:kms:*:${local.account}:key/*"] : var.snapshot_kms_key_arns

  # Statements of each function:
  # - any:      actions that AWS offers no resource level for
  # - read:     on every snapshot, that of another account's share too
  # - start:    creates snapshots, always with the job's tag
  # - own:      on snapshots that carry a job's tag, so only on what a job made
  # - tag:      on snapshots, without a condition: StartSnapshot checks it before the tag is there
  # - objects:  on job records in this region's work bucket
  # - list:     on the keys of job records
  # - machines: on executions of this deployment's machines in this region
  # - keys:     uses the keys of encrypted snapshots, through EBS only
  calls = {
    plan_transfer = {
      any     = ["ec2:DescribeRegions", "ec2:DescribeSnapshots"]
      read    = ["ebs:ListSnapshotBlocks"]
      start   = ["ebs:StartSnapshot"]
      own     = ["ec2:DeleteSnapshot"]
      tag     = ["ec2:CreateTags"]
      objects = ["s3:GetObject", "s3:PutObject"]
      list    = ["s3:ListBucket"]
      keys    = true
    }
    move_blocks = {
      read    = ["ebs:GetSnapshotBlock", "ebs:ListSnapshotBlocks"]
      own     = ["ebs:PutSnapshotBlock"]
      objects = ["s3:GetObject", "s3:PutObject"]
      list    = ["s3:ListBucket"]
      keys    = true
    }
    complete_transfer = {
      any     = ["ec2:DescribeSnapshots"]
      read    = ["ebs:ListSnapshotBlocks"]
      start   = ["ebs:StartSnapshot"]
      tag     = ["ec2:CreateTags"]
      own     = ["ebs:CompleteSnapshot"]
      objects = ["s3:GetObject", "s3:PutObject"]
      list    = ["s3:ListBucket"]
      keys    = true
    }
    check_targets = {
      any     = ["ec2:DescribeSnapshots"]
      objects = ["s3:GetObject"]
      list    = ["s3:ListBucket"]
    }
    write_receipt = {
      any     = ["ec2:DescribeSnapshots"]
      own     = ["ec2:CreateTags"]
      objects = ["s3:GetObject", "s3:PutObject"]
      list    = ["s3:ListBucket"]
    }
    sweep_jobs = {
      any      = ["ec2:DescribeSnapshots"]
      own      = ["ec2:DeleteSnapshot"]
      objects  = ["s3:DeleteObject", "s3:GetObject", "s3:PutObject"]
      list     = ["s3:ListBucket"]
      machines = ["states:DescribeExecution"]
    }
  }
}

data "aws_iam_policy_document" "function" {
  for_each = local.calls

  dynamic "statement" {
    for_each = try([each.value.any], [])

    content {
      sid     = "DescribeAnywhere"
      actions = statement.value
      # EC2 has no resource level for its Describe actions.
      resources = ["*"]
    }
  }

  dynamic "statement" {
    for_each = try([each.value.read], [])

    content {
      sid       = "ReadSnapshots"
      actions   = statement.value
      resources = local.snapshot_arns
    }
  }

  dynamic "statement" {
    for_each = try([each.value.start], [])

    content {
      sid       = "StartSnapshotsWithTheJobsTag"
      actions   = statement.value
      resources = local.snapshot_arns

      condition {
        test     = "Null"
        variable = "aws:RequestTag/${local.job_tag}"
        values   = ["false"]
      }
    }
  }

  dynamic "statement" {
    for_each = try([each.value.tag], [])

    content {
      sid       = "TagStartedSnapshots"
      actions   = statement.value
      resources = local.snapshot_arns
    }
  }

  dynamic "statement" {
    for_each = try([each.value.own], [])

    content {
      sid       = "ChangeSnapshotsOfJobs"
      actions   = statement.value
      resources = local.snapshot_arns

      condition {
        test     = "Null"
        variable = "aws:ResourceTag/${local.job_tag}"
        values   = ["false"]
      }
    }
  }

  dynamic "statement" {
    for_each = try([each.value.objects], [])

    content {
      sid       = "UseJobRecords"
      actions   = statement.value
      resources = local.job_objects
    }
  }

  dynamic "statement" {
    for_each = try([each.value.list], [])

    content {
      sid       = "ListJobRecords"
      actions   = statement.value
      resources = [local.work_bucket_arn]

      condition {
        # IfExists: reading an object that is not there is answered with NoSuchKey, instead of AccessDenied,
        # only to those who may list, and such a read has no prefix to compare. Nothing but jobs/ is in there.
        test     = "StringLikeIfExists"
        variable = "s3:prefix"
        values   = ["jobs/*"]
      }
    }
  }

  dynamic "statement" {
    for_each = try([each.value.machines], [])

    content {
      sid     = "LookAtJobs"
      actions = statement.value
      resources = [
        for name in values(local.machine_names) :
        "arn:${local.partition}:states:${local.region}:${local.account}:execution:${name}:*"
      ]
    }
  }

  dynamic "statement" {
    for_each = try(each.value.keys, false) && length(local.snapshot_keys) > 0 ? [local.snapshot_keys] : []

    content {
      sid = "UseKeysOfSnapshotsThroughEbs"
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
        test     = "StringLike"
        variable = "kms:ViaService"
        # EBS calls KMS under the name of EC2.
        values = ["ec2.*.amazonaws.com"]
      }
    }
  }

  dynamic "statement" {
    for_each = try(each.value.keys, false) && length(local.snapshot_keys) > 0 ? [local.snapshot_keys] : []

    content {
      sid       = "LetEbsKeepGrants"
      actions   = ["kms:CreateGrant"]
      resources = statement.value

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

  dynamic "statement" {
    # The work bucket's own key, when it has one. Not a call of the function: S3 makes it on its behalf.
    for_each = var.storage_kms_key_arn == null ? [] : [var.storage_kms_key_arn]

    content {
      sid       = "UseKeyOfTheWorkBucketThroughS3"
      actions   = ["kms:Decrypt", "kms:GenerateDataKey"]
      resources = [statement.value]

      condition {
        test     = "StringEquals"
        variable = "kms:ViaService"
        values   = ["s3.${local.region}.amazonaws.com"]
      }
    }
  }

  dynamic "statement" {
    for_each = length(var.trusted_role_arns) > 0 ? [var.trusted_role_arns] : []

    content {
      sid       = "AssumeTrustedRoles"
      actions   = ["sts:AssumeRole"]
      resources = statement.value
    }
  }
}
