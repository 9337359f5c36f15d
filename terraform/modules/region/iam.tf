# What each function may call. The same actions are declared in functions/<name>/permissions.json, and
# tests/declared.tftest.hcl holds the two against each other, both ways.

locals {
  job_tag = "blockferry:job-id"

  # Snapshot ARNs have no account. The region is a wildcard because a job names the regions of its source and
  # targets itself, and one function reads the one and writes the other.
  snapshot_arns = ["arn:${local.partition}:ec2:*::snapshot/*"]

  # A job's objects are jobs/<operation>/<name>/..., below one prefix for each function that writes them.
  job_objects = ["${local.work_bucket_arn}/jobs/*"]
  job_folders = "${local.work_bucket_arn}/jobs/*/*"

  execution_tag = "blockferry:execution"
  proof_tag     = "blockferry:proved-snapshot-id"

  # What making an encrypted snapshot takes (EBS user guide, permissions for the direct APIs).
  snapshot_key_actions = [
    "kms:Decrypt",
    "kms:DescribeKey",
    "kms:Encrypt",
    "kms:GenerateDataKey",
    "kms:GenerateDataKeyWithoutPlaintext",
    "kms:ReEncryptFrom",
    "kms:ReEncryptTo",
  ]

  # Disk images: every bucket of this account, or only those that are named.
  image_buckets = var.image_bucket_names == null ? ["*"] : var.image_bucket_names

  # Archives: those of this deployment, of all its Regions, and the buckets that are named; they are read from the
  # buckets of images, too. Names of objects are fixed, so that nothing else of a bucket can be written or read.
  archive_buckets = var.archive_bucket_names == null ? ["*"] : concat(["${var.name_prefix}-archive-${local.account}-*"], var.archive_bucket_names)
  archives_read   = contains(concat(local.archive_buckets, local.image_buckets), "*") ? ["*"] : distinct(concat(local.archive_buckets, local.image_buckets))
  archive_objects = ["index/*.idx", "manifest.json", "segments/*.zst", "unfinished.json"]
  # Raw disk images that are made, under any key of the buckets that are named: none, unless an operator says so.
  restore_buckets = var.restore_bucket_names == null ? ["*"] : var.restore_bucket_names
  archive_keys    = var.archive_kms_key_arns == null ? ["arn:${local.partition}:kms:*:${local.account}:key/*"] : var.archive_kms_key_arns

  # Through EBS a principal may use every key that the key's own policy gives to this account, or only the
  # named ones. The region is a wildcard for the same reason as above.
  snapshot_keys = var.snapshot_kms_key_arns == null ? ["arn:${local.partition}:kms:*:${local.account}:key/*"] : var.snapshot_kms_key_arns

  # Statements of each function:
  # - any:      actions that AWS offers no resource level for
  # - read:     on every snapshot, that of another account's share too
  # - start:    creates snapshots, always with the job's tag
  # - own:      on snapshots that carry a job's tag, so only on what a job made
  # - delete:   on snapshots of jobs that do not carry the proof
  # - stays:    assumes no role: works in this account only
  # - makes:    snapshots of this Region's volumes and instances, always with the tags of a backup
  # - backups:  tags of what is being made, and of backups by tag of this Region
  # - copies:   snapshots to any Region, always with the tag that names the original
  # - notes:    tags of copies that are made, of originals that want copies, and of copies: each only those that are due
  # - expires:  on backups by tag of this Region, for the mark of what is due and no other tag
  # - expired:  on backups by tag of this Region that are not kept for ever, and that carry the mark if one is needed
  # - tag:      on snapshots, without a condition: StartSnapshot checks it before the tag is there
  # - objects:  reads what jobs have in this region's work bucket
  # - writes:   what it writes there, by name within the folder of a job
  # - deletes:  what it deletes there
  # - running:  reads which workers run, and the speeds that operators gave to jobs
  # - leases:   says so of its own worker, and that it is done
  # - list:     on the keys of job records, and of what runs
  # - machines: on executions of this deployment's machines in this region
  # - keys:     on the keys of encrypted snapshots, through EBS only
  # - key_facts: looks at keys, which decides whether EC2 could copy a snapshot by itself
  # - images:   reads disk images, and decrypts them through S3 only
  # - archives: reads archives; stores and drops are the objects of one that it writes and deletes, marks
  #             tells in the tags of a manifest what came out when it was verified
  # - raws:     writes raw disk images, and looks at them; finds are on their buckets
  calls = {
    plan_transfer = {
      any = [
        "ec2:DescribeRegions", "ec2:DescribeSnapshots", "ec2:GetEbsEncryptionByDefault", "lambda:GetAccountSettings",
      ]
      read     = ["ebs:ListChangedBlocks", "ebs:ListSnapshotBlocks"]
      images   = true
      start    = ["ebs:StartSnapshot"]
      delete   = ["ec2:DeleteSnapshot"]
      tag      = ["ec2:CreateTags"]
      objects  = ["s3:GetObject"]
      writes   = ["plan/*"]
      running  = ["s3:GetObject"]
      list     = ["s3:ListBucket"]
      keys     = local.snapshot_key_actions
      archives = ["s3:GetObject"]
      stores   = ["unfinished.json"]
      raws     = ["s3:AbortMultipartUpload", "s3:GetObject", "s3:ListMultipartUploadParts", "s3:PutObject", "s3:PutObjectTagging"]
      finds    = ["s3:ListBucket", "s3:ListBucketMultipartUploads"]
    }
    unpack_image = {
      images  = true
      objects = ["s3:GetObject"]
      writes  = ["image/*"]
      deletes = ["image/*"]
      list    = ["s3:ListBucket"]
    }
    inspect_snapshots = {
      any       = ["ec2:DescribeRegions", "ec2:DescribeSnapshots", "ec2:GetEbsEncryptionByDefault"]
      read      = ["ebs:GetSnapshotBlock", "ebs:ListChangedBlocks", "ebs:ListSnapshotBlocks"]
      objects   = ["s3:GetObject"]
      writes    = ["receipt.json", "report.md"]
      list      = ["s3:ListBucket"]
      key_facts = ["kms:DescribeKey"]
      keys      = ["kms:Decrypt"]
    }
    move_blocks = {
      read     = ["ebs:GetSnapshotBlock", "ebs:ListChangedBlocks", "ebs:ListSnapshotBlocks"]
      images   = true
      own      = ["ebs:PutSnapshotBlock"]
      objects  = ["s3:GetObject"]
      writes   = ["moved/*"]
      running  = ["s3:GetObject"]
      leases   = ["s3:DeleteObject", "s3:PutObject"]
      list     = ["s3:ListBucket"]
      keys     = local.snapshot_key_actions
      archives = ["s3:GetObject"]
      stores   = ["index/*.idx", "segments/*.zst"]
      raws     = ["s3:GetObject", "s3:ListMultipartUploadParts", "s3:PutObject"]
      finds    = ["s3:ListBucket"]
    }
    complete_transfer = {
      any      = ["ec2:DescribeSnapshots"]
      read     = ["ebs:ListChangedBlocks", "ebs:ListSnapshotBlocks"]
      start    = ["ebs:StartSnapshot"]
      tag      = ["ec2:CreateTags"]
      own      = ["ebs:CompleteSnapshot"]
      delete   = ["ec2:DeleteSnapshot"]
      objects  = ["s3:GetObject"]
      writes   = ["proved/*"]
      deletes  = ["moved/failed/*"]
      list     = ["s3:ListBucket"]
      keys     = local.snapshot_key_actions
      archives = ["s3:GetObject"]
      stores   = ["index/*.idx", "manifest.json", "unfinished.json"]
      drops    = ["index/*.idx", "segments/*.zst", "unfinished.json"]
      raws     = ["s3:AbortMultipartUpload", "s3:GetObject", "s3:ListMultipartUploadParts", "s3:PutObject", "s3:PutObjectTagging"]
      finds    = ["s3:ListBucket", "s3:ListBucketMultipartUploads"]
    }
    check_targets = {
      any      = ["ec2:DescribeSnapshots"]
      objects  = ["s3:GetObject"]
      list     = ["s3:ListBucket"]
      archives = ["s3:GetObject"]
      raws     = ["s3:GetObject"]
      finds    = ["s3:ListBucket"]
    }
    write_receipt = {
      any      = ["ec2:DescribeSnapshots"]
      objects  = ["s3:GetObject"]
      writes   = ["receipt.json", "report.md"]
      deletes  = ["image/*"]
      list     = ["s3:ListBucket"]
      archives = ["s3:GetObject"]
      raws     = ["s3:GetObject"]
      finds    = ["s3:ListBucket"]
    }
    plan_verification = {
      any      = ["ec2:DescribeRegions", "ec2:DescribeSnapshots", "lambda:GetAccountSettings"]
      read     = ["ebs:ListSnapshotBlocks"]
      objects  = ["s3:GetObject"]
      writes   = ["plan/*"]
      list     = ["s3:ListBucket"]
      keys     = ["kms:Decrypt"]
      archives = ["s3:GetObject"]
    }
    verify_blocks = {
      read     = ["ebs:GetSnapshotBlock", "ebs:ListSnapshotBlocks"]
      objects  = ["s3:GetObject"]
      writes   = ["moved/*"]
      list     = ["s3:ListBucket"]
      keys     = ["kms:Decrypt"]
      archives = ["s3:GetObject"]
    }
    conclude_verification = {
      objects  = ["s3:GetObject"]
      writes   = ["receipt.json", "report.md"]
      list     = ["s3:ListBucket"]
      archives = ["s3:GetObject"]
      marks    = ["s3:GetObjectTagging", "s3:PutObjectTagging"]
    }
    plan_backup = {
      stays   = true
      any     = ["ec2:DescribeInstances", "ec2:DescribeRegions", "ec2:DescribeSnapshots", "ec2:DescribeVolumes"]
      objects = ["s3:GetObject"]
      writes  = ["plan/*"]
      list    = ["s3:ListBucket"]
    }
    take_backups = {
      stays    = true
      any      = ["ec2:DescribeSnapshots"]
      makes    = ["ec2:CreateSnapshot", "ec2:CreateSnapshots"]
      backups  = ["ec2:CreateTags"]
      objects  = ["s3:GetObject"]
      writes   = ["claims/*", "take_backups/*"]
      list     = ["s3:ListBucket"]
      machines = ["states:DescribeExecution"]
    }
    plan_replication = {
      stays    = true
      any      = ["ec2:DescribeRegions", "ec2:DescribeSnapshots"]
      objects  = ["s3:GetObject"]
      writes   = ["claims/*", "plan/*"]
      list     = ["s3:ListBucket"]
      machines = ["states:DescribeExecution"]
    }
    copy_backups = {
      stays   = true
      any     = ["ec2:DescribeSnapshots"]
      copies  = ["ec2:CopySnapshot"]
      notes   = ["ec2:CreateTags"]
      objects = ["s3:GetObject"]
      writes  = ["claims/*", "copy_backups/*"]
      list    = ["s3:ListBucket"]
      keys    = local.snapshot_key_actions
    }
    plan_expiry = {
      stays   = true
      any     = ["ec2:DescribeImages", "ec2:DescribeLockedSnapshots", "ec2:DescribeSnapshots"]
      objects = ["s3:GetObject"]
      writes  = ["plan/*"]
      list    = ["s3:ListBucket"]
    }
    mark_expired = {
      stays   = true
      any     = ["ec2:DescribeImages", "ec2:DescribeLockedSnapshots", "ec2:DescribeSnapshots", "ec2:DescribeSnapshotAttribute"]
      expires = ["ec2:CreateTags", "ec2:DeleteTags"]
      objects = ["s3:GetObject"]
      writes  = ["mark_expired/*"]
      list    = ["s3:ListBucket"]
    }
    delete_expired = {
      stays   = true
      any     = ["ec2:DescribeImages", "ec2:DescribeLockedSnapshots", "ec2:DescribeSnapshots", "ec2:DescribeSnapshotAttribute"]
      expired = ["ec2:DeleteSnapshot"]
      objects = ["s3:GetObject"]
      writes  = ["delete_expired/*"]
      list    = ["s3:ListBucket"]
    }
    write_report = {
      stays   = true
      objects = ["s3:GetObject"]
      writes  = ["report.json", "report.md"]
      list    = ["s3:ListBucket"]
    }
    sweep_jobs = {
      any      = ["ec2:DescribeSnapshots"]
      delete   = ["ec2:DeleteSnapshot"]
      objects  = ["s3:GetObject"]
      writes   = ["swept.json"]
      deletes  = ["*"]
      list     = ["s3:ListBucket"]
      machines = ["states:DescribeExecution"]
      archives = ["s3:GetObject"]
      drops    = ["index/*.idx", "segments/*.zst", "unfinished.json"]
      raws     = ["s3:AbortMultipartUpload", "s3:GetObject", "s3:ListMultipartUploadParts"]
      finds    = ["s3:ListBucket", "s3:ListBucketMultipartUploads"]
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
      # EC2 and Lambda have no resource level for these: Describe actions, and settings of the account.
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
      sid       = "StartSnapshotsWithTheJobsTags"
      actions   = statement.value
      resources = local.snapshot_arns

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
    for_each = try([each.value.delete], [])

    content {
      sid       = "DeleteWhatIsNotProved"
      actions   = statement.value
      resources = local.snapshot_arns

      condition {
        test     = "Null"
        variable = "aws:ResourceTag/${local.execution_tag}"
        values   = ["false"]
      }

      # Whatever a record says: a copy that a job has proved is never deleted.
      condition {
        test     = "Null"
        variable = "aws:ResourceTag/${local.proof_tag}"
        values   = ["true"]
      }
    }
  }

  dynamic "statement" {
    for_each = try([each.value.makes], [])

    content {
      sid     = "MakeBackupsOf"
      actions = statement.value
      resources = [
        "arn:${local.partition}:ec2:${local.region}:${local.account}:instance/*",
        "arn:${local.partition}:ec2:${local.region}:${local.account}:volume/*",
      ]
    }
  }

  dynamic "statement" {
    for_each = try([each.value.makes], [])

    content {
      sid       = "MakeBackupsWithTheirTags"
      actions   = statement.value
      resources = local.own_snapshot_arns

      condition {
        test     = "StringEquals"
        variable = "aws:RequestTag/${local.backup_tags.type}"
        values   = ["Automated"]
      }

      condition {
        test     = "Null"
        variable = "aws:RequestTag/${local.backup_tags.delete_on}"
        values   = ["false"]
      }
    }
  }

  dynamic "statement" {
    for_each = try([each.value.backups], [])

    content {
      sid       = "TagBackupsThatAreMade"
      actions   = statement.value
      resources = local.own_snapshot_arns

      condition {
        test     = "StringEquals"
        variable = "ec2:CreateAction"
        values   = ["CreateSnapshot", "CreateSnapshots"]
      }
    }
  }

  dynamic "statement" {
    for_each = try([each.value.backups], [])

    content {
      sid       = "TagBackups"
      actions   = statement.value
      resources = local.own_snapshot_arns

      condition {
        test     = "StringEquals"
        variable = "aws:ResourceTag/${local.backup_tags.type}"
        values   = ["Automated"]
      }
    }
  }

  dynamic "statement" {
    for_each = try([each.value.copies], [])

    content {
      sid       = "CopyBackups"
      actions   = statement.value
      resources = local.snapshot_arns

      condition {
        test     = "Null"
        variable = "aws:RequestTag/${local.backup_tags.source_snapshot}"
        values   = ["false"]
      }
    }
  }

  dynamic "statement" {
    for_each = try([each.value.notes], [])

    content {
      sid       = "TagCopiesThatAreMade"
      actions   = statement.value
      resources = local.snapshot_arns

      condition {
        test     = "StringEquals"
        variable = "ec2:CreateAction"
        values   = ["CopySnapshot"]
      }
    }
  }

  dynamic "statement" {
    for_each = try([each.value.notes], [])

    content {
      sid       = "NoteCopiesOnTheirOriginals"
      actions   = statement.value
      resources = local.own_snapshot_arns

      condition {
        test     = "Null"
        variable = "aws:ResourceTag/${local.backup_tags.destinations}"
        values   = ["false"]
      }

      condition {
        test     = "ForAllValues:StringLike"
        variable = "aws:TagKeys"
        values   = ["blockferry:copy:*"]
      }
    }
  }

  dynamic "statement" {
    for_each = try([each.value.notes], [])

    content {
      sid       = "ProtectCopies"
      actions   = statement.value
      resources = local.snapshot_arns

      condition {
        test     = "Null"
        variable = "aws:ResourceTag/${local.backup_tags.source_snapshot}"
        values   = ["false"]
      }

      condition {
        # However the key is written.
        test     = "ForAllValues:StringEqualsIgnoreCase"
        variable = "aws:TagKeys"
        values   = [local.backup_tags.keep]
      }
    }
  }

  dynamic "statement" {
    for_each = try([each.value.expires], [])

    content {
      sid       = "MarkBackups"
      actions   = statement.value
      resources = local.own_snapshot_arns

      condition {
        test     = "StringEquals"
        variable = "aws:ResourceTag/${local.backup_tags.type}"
        values   = ["Automated"]
      }

      condition {
        test     = "ForAllValues:StringEquals"
        variable = "aws:TagKeys"
        values   = [local.mark_tag]
      }

      condition {
        # Without any key the test above holds, too, and DeleteTags without keys takes all of them.
        test     = "Null"
        variable = "aws:TagKeys"
        values   = ["false"]
      }
    }
  }

  dynamic "statement" {
    for_each = try([each.value.expired], [])

    content {
      sid       = "DeleteBackupsThatAreDue"
      actions   = statement.value
      resources = local.own_snapshot_arns

      condition {
        test     = "StringEquals"
        variable = "aws:ResourceTag/${local.backup_tags.type}"
        values   = ["Automated"]
      }

      condition {
        test     = "Null"
        variable = "aws:ResourceTag/${local.backup_tags.keep}"
        values   = ["true"]
      }

      dynamic "condition" {
        for_each = var.backups.act_at_once ? [] : [local.mark_tag]

        content {
          test     = "Null"
          variable = "aws:ResourceTag/${condition.value}"
          values   = ["false"]
        }
      }
    }
  }

  dynamic "statement" {
    for_each = try([each.value.objects], [])

    content {
      sid       = "ReadJobRecords"
      actions   = statement.value
      resources = local.job_objects
    }
  }

  dynamic "statement" {
    for_each = try([each.value.writes], [])

    content {
      sid       = "WriteItsOwnRecords"
      actions   = ["s3:PutObject"]
      resources = [for name in statement.value : "${local.job_folders}/${name}"]
    }
  }

  dynamic "statement" {
    for_each = try([each.value.deletes], [])

    content {
      sid       = "DeleteRecords"
      actions   = ["s3:DeleteObject"]
      resources = [for name in statement.value : "${local.job_folders}/${name}"]
    }
  }

  dynamic "statement" {
    for_each = try([each.value.running], [])

    content {
      sid       = "SeeWhatRuns"
      actions   = statement.value
      resources = ["${local.work_bucket_arn}/running/*"]
    }
  }

  dynamic "statement" {
    for_each = try([each.value.leases], [])

    content {
      sid       = "TellWhatRuns"
      actions   = statement.value
      resources = ["${local.work_bucket_arn}/running/leases/*"]
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
        # only to those who may list, and such a read has no prefix to compare.
        test     = "StringLikeIfExists"
        variable = "s3:prefix"
        values   = concat(["jobs/*"], can(each.value.running) ? ["running/*"] : [])
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
    for_each = length(local.snapshot_keys) > 0 ? try([each.value.keys], []) : []

    content {
      sid       = "UseKeysOfSnapshotsThroughEbs"
      actions   = statement.value
      resources = local.snapshot_keys

      condition {
        test     = "StringLike"
        variable = "kms:ViaService"
        # EBS calls KMS under the name of EC2.
        values = ["ec2.*.amazonaws.com"]
      }
    }
  }

  dynamic "statement" {
    # Who makes encrypted snapshots, that is, and not who only reads them.
    for_each = length(local.snapshot_keys) > 0 && contains(try(each.value.keys, []), "kms:GenerateDataKey") ? [1] : []

    content {
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

  dynamic "statement" {
    for_each = length(local.snapshot_keys) > 0 ? try([each.value.key_facts], []) : []

    content {
      sid       = "LookAtKeysOfSnapshots"
      actions   = statement.value
      resources = local.snapshot_keys
    }
  }

  dynamic "statement" {
    for_each = try(each.value.images, false) && length(local.image_buckets) > 0 ? [local.image_buckets] : []

    content {
      sid       = "ReadImages"
      actions   = ["s3:GetObject"]
      resources = [for bucket in statement.value : "arn:${local.partition}:s3:::${bucket}/*"]

      condition {
        # A bucket of another account is read through a role of that account.
        test     = "StringEquals"
        variable = "aws:ResourceAccount"
        values   = [local.account]
      }
    }
  }

  dynamic "statement" {
    for_each = try(each.value.images, false) && length(local.image_buckets) > 0 ? [local.image_buckets] : []

    content {
      # S3 tells a missing image from a forbidden one only to those who may list.
      sid       = "FindImages"
      actions   = ["s3:ListBucket"]
      resources = [for bucket in statement.value : "arn:${local.partition}:s3:::${bucket}"]

      condition {
        test     = "StringEquals"
        variable = "aws:ResourceAccount"
        values   = [local.account]
      }
    }
  }

  dynamic "statement" {
    for_each = try(each.value.images, false) && length(local.image_buckets) > 0 ? [1] : []

    content {
      sid     = "DecryptImagesThroughS3"
      actions = ["kms:Decrypt"]
      # Of this account only; which of them decrypts an image is a matter of the bucket.
      resources = ["arn:${local.partition}:kms:*:${local.account}:key/*"]

      condition {
        test     = "StringLike"
        variable = "kms:ViaService"
        values   = ["s3.*.amazonaws.com"]
      }
    }
  }

  dynamic "statement" {
    for_each = try([each.value.archives], [])

    content {
      sid       = "ReadArchives"
      actions   = statement.value
      resources = flatten([for bucket in local.archives_read : [for name in local.archive_objects : "arn:${local.partition}:s3:::${bucket}/*${name}"]])

      condition {
        # A bucket of another account is used through a role of that account.
        test     = "StringEquals"
        variable = "aws:ResourceAccount"
        values   = [local.account]
      }
    }
  }

  dynamic "statement" {
    for_each = try([each.value.archives], [])

    content {
      # Which Region a bucket is in, what is in an archive, and that an object is missing and not forbidden.
      sid       = "FindArchives"
      actions   = ["s3:ListBucket"]
      resources = [for bucket in local.archives_read : "arn:${local.partition}:s3:::${bucket}"]

      condition {
        test     = "StringEquals"
        variable = "aws:ResourceAccount"
        values   = [local.account]
      }
    }
  }

  dynamic "statement" {
    for_each = try([each.value.stores], [])

    content {
      sid       = "WriteArchives"
      actions   = ["s3:PutObject", "s3:PutObjectTagging"]
      resources = flatten([for bucket in local.archive_buckets : [for name in statement.value : "arn:${local.partition}:s3:::${bucket}/*${name}"]])

      condition {
        test     = "StringEquals"
        variable = "aws:ResourceAccount"
        values   = [local.account]
      }
    }
  }

  dynamic "statement" {
    for_each = try([each.value.marks], [])

    content {
      sid       = "MarkVerifiedArchives"
      actions   = statement.value
      resources = [for bucket in local.archives_read : "arn:${local.partition}:s3:::${bucket}/*manifest.json"]

      condition {
        test     = "StringEquals"
        variable = "aws:ResourceAccount"
        values   = [local.account]
      }
    }
  }

  dynamic "statement" {
    for_each = try([each.value.drops], [])

    content {
      # Of an archive that is not finished. What has a manifest is looked at before, and never deleted.
      sid       = "DeleteUnfinishedArchives"
      actions   = ["s3:DeleteObject"]
      resources = flatten([for bucket in local.archive_buckets : [for name in statement.value : "arn:${local.partition}:s3:::${bucket}/*${name}"]])

      condition {
        test     = "StringEquals"
        variable = "aws:ResourceAccount"
        values   = [local.account]
      }
    }
  }

  dynamic "statement" {
    for_each = length(local.restore_buckets) > 0 ? try([each.value.raws], []) : []

    content {
      sid       = "MakeRawImages"
      actions   = statement.value
      resources = [for bucket in local.restore_buckets : "arn:${local.partition}:s3:::${bucket}/*"]

      condition {
        # A bucket of another account is used through a role of that account.
        test     = "StringEquals"
        variable = "aws:ResourceAccount"
        values   = [local.account]
      }
    }
  }

  dynamic "statement" {
    for_each = length(local.restore_buckets) > 0 ? try([each.value.finds], []) : []

    content {
      # Which Region a bucket is in, which uploads a job has begun, and that an object is missing and not forbidden.
      sid       = "FindRawImages"
      actions   = statement.value
      resources = [for bucket in local.restore_buckets : "arn:${local.partition}:s3:::${bucket}"]

      condition {
        test     = "StringEquals"
        variable = "aws:ResourceAccount"
        values   = [local.account]
      }
    }
  }

  dynamic "statement" {
    for_each = can(each.value.archives) && length(local.archive_keys) > 0 ? [can(each.value.stores)] : []

    content {
      sid       = "UseKeysOfArchivesThroughS3"
      actions   = statement.value ? ["kms:Decrypt", "kms:GenerateDataKey"] : ["kms:Decrypt"]
      resources = local.archive_keys

      condition {
        test     = "StringLike"
        variable = "kms:ViaService"
        values   = ["s3.*.amazonaws.com"]
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
    for_each = length(var.trusted_role_arns) > 0 && !try(each.value.stays, false) ? [var.trusted_role_arns] : []

    content {
      sid       = "AssumeTrustedRoles"
      actions   = ["sts:AssumeRole"]
      resources = statement.value
    }
  }
}
