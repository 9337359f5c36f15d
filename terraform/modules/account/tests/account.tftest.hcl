# The real provider renders the policies, so this reads what AWS would get. It makes no call: nothing is
# applied, and what it would ask AWS is given here.

provider "aws" {
  region                      = "us-east-1"
  access_key                  = "111122223333"
  secret_key                  = "offline"
  skip_credentials_validation = true
  skip_metadata_api_check     = true
  skip_requesting_account_id  = true
}

override_data {
  target = data.aws_caller_identity.current
  values = { account_id = "111122223333" }
}

variables {
  name_prefix = "blockferry"
  regions     = ["us-east-1", "eu-west-1"]
  tags        = { Team = "storage" }
}

run "an_operator_starts_and_redrives_jobs_and_reads_receipts_and_writes_speeds_only" {
  command = plan

  assert {
    condition = toset(one([
      for statement in jsondecode(aws_iam_policy.operator.policy).Statement : statement.Resource if statement.Sid == "StartJobs"
      ])) == toset([
      "arn:aws:states:us-east-1:111122223333:stateMachine:blockferry-*",
      "arn:aws:states:eu-west-1:111122223333:stateMachine:blockferry-*",
    ])
    error_message = "The operator must start the machines of this deployment only."
  }

  assert {
    condition = toset(flatten([
      for statement in jsondecode(aws_iam_policy.operator.policy).Statement : statement.Resource if try(contains(statement.Action, "states:RedriveExecution"), false)
      ])) == toset([
      "arn:aws:states:us-east-1:111122223333:execution:blockferry-*",
      "arn:aws:states:eu-west-1:111122223333:execution:blockferry-*",
    ])
    error_message = "The operator must redrive jobs of this deployment only."
  }

  assert {
    condition = toset(flatten([
      for statement in jsondecode(aws_iam_policy.operator.policy).Statement : [
        for action in flatten([statement.Action]) : "${action} ${statement.Sid}" if startswith(action, "s3:")
      ]
    ])) == toset(["s3:GetObject ReadReceipts", "s3:GetObject SeeWhatRuns", "s3:ListBucket FindReceipts", "s3:PutObject ChangeSpeeds", "s3:DeleteObject ChangeSpeeds"])
    error_message = "The operator must read only, but for the speeds of jobs."
  }

  assert {
    condition = toset(flatten([
      for statement in jsondecode(aws_iam_policy.operator.policy).Statement : statement.Resource if statement.Sid == "ChangeSpeeds"
      ])) == toset([
      "arn:aws:s3:::blockferry-work-111122223333-us-east-1/running/speeds/*",
      "arn:aws:s3:::blockferry-work-111122223333-eu-west-1/running/speeds/*",
    ])
    error_message = "The operator must write nothing but the speeds of jobs."
  }

  assert {
    condition = alltrue(flatten([
      for statement in jsondecode(aws_iam_policy.operator.policy).Statement : [
        for arn in flatten([statement.Resource]) : anytrue([for name in ["receipt.json", "report.", "proved/targets.json"] : strcontains(arn, "/jobs/*/${name}")])
      ] if statement.Sid == "ReadReceipts"
    ]))
    error_message = "The operator must see how jobs ended only."
  }

  assert {
    condition     = aws_iam_policy.operator.name == "blockferry-operator" && aws_iam_policy.operator.tags == tomap({ Team = "storage", Project = "blockferry", ManagedBy = "terraform" })
    error_message = "The policy must carry the tags."
  }
}

run "an_uploader_writes_and_deletes_no_target_of_a_job" {
  command = plan

  assert {
    condition = alltrue([
      for statement in jsondecode(aws_iam_policy.uploader.policy).Statement :
      statement.Condition.Null["aws:ResourceTag/blockferry:job-id"] == "true" && statement.Condition.Null["aws:ResourceTag/blockferry:execution"] == "false"
      if length(setintersection(flatten([statement.Action]), ["ebs:PutSnapshotBlock", "ebs:CompleteSnapshot", "ec2:DeleteSnapshot"])) > 0
    ])
    error_message = "An uploader must write, seal and delete uploads only."
  }

  assert {
    condition = alltrue([
      for statement in jsondecode(aws_iam_policy.uploader.policy).Statement :
      statement.Condition.Null["aws:ResourceTag/blockferry:proved-snapshot-id"] == "true" if statement.Sid == "DeleteUnfinishedUploads"
    ])
    error_message = "An uploader must not delete what is proved."
  }

  assert {
    condition = toset(flatten([
      for statement in jsondecode(aws_iam_policy.uploader.policy).Statement : [for action in flatten([statement.Action]) : action if !startswith(action, "kms:")]
      ])) == toset([
      "ebs:CompleteSnapshot", "ebs:GetSnapshotBlock", "ebs:ListSnapshotBlocks", "ebs:PutSnapshotBlock", "ebs:StartSnapshot",
      "ec2:CreateTags", "ec2:DeleteSnapshot", "ec2:DescribeSnapshots", "ec2:GetEbsEncryptionByDefault",
    ])
    error_message = "An uploader must be allowed what the command calls, and nothing else."
  }
}

run "an_archiver_deletes_no_manifest_and_reads_no_block" {
  command = plan

  assert {
    condition = toset(flatten([
      for statement in jsondecode(aws_iam_policy.archiver.policy).Statement : statement.Action
    ])) == toset(["s3:DeleteObject", "s3:GetObject", "s3:ListBucket", "s3:PutObject", "s3:PutObjectTagging"])
    error_message = "An archiver must be allowed what the command calls, and nothing else."
  }

  assert {
    condition = alltrue([
      for statement in jsondecode(aws_iam_policy.archiver.policy).Statement :
      alltrue([for arn in flatten([statement.Resource]) : startswith(arn, "arn:aws:s3:::blockferry-archive-111122223333-*")]) && statement.Condition.StringEquals["aws:ResourceAccount"] == "111122223333"
    ])
    error_message = "An archiver must reach the archive buckets of this deployment only."
  }

  assert {
    condition = toset(one([
      for statement in jsondecode(aws_iam_policy.archiver.policy).Statement : statement.Resource if statement.Sid == "DeleteUnfinishedArchives"
      ])) == toset([
      "arn:aws:s3:::blockferry-archive-111122223333-*/*index/*.idx",
      "arn:aws:s3:::blockferry-archive-111122223333-*/*segments/*.zst",
      "arn:aws:s3:::blockferry-archive-111122223333-*/*unfinished.json",
    ])
    error_message = "An archiver must not delete a manifest."
  }

  assert {
    condition = length([
      for arn in one([
        for statement in jsondecode(aws_iam_policy.archiver.policy).Statement : statement.Resource if statement.Sid == "ReadManifestsAndIndexes"
      ]) : arn if strcontains(arn, "segments/")
    ]) == 0
    error_message = "An archiver must read no block."
  }
}

run "an_archiver_uses_the_buckets_and_keys_that_are_named" {
  command = plan

  variables {
    archive_bucket_names = ["disks"]
    archive_kms_key_arns = ["arn:aws:kms:us-east-1:111122223333:key/k"]
  }

  assert {
    condition = contains(one([
      for statement in jsondecode(aws_iam_policy.archiver.policy).Statement : statement.Resource if statement.Sid == "WriteArchives"
    ]), "arn:aws:s3:::disks/*manifest.json")
    error_message = "A bucket that is named must be written."
  }

  assert {
    condition = one([
      for statement in jsondecode(aws_iam_policy.archiver.policy).Statement : flatten([statement.Resource]) if statement.Sid == "UseKeysOfArchivesThroughS3"
    ]) == ["arn:aws:kms:us-east-1:111122223333:key/k"]
    error_message = "A key that is named must be used, and no other one."
  }
}

run "wrong_values_are_refused_by_name" {
  command = plan

  variables {
    name_prefix          = "Block_Ferry"
    regions              = []
    archive_bucket_names = ["s3://disks"]
    archive_kms_key_arns = ["arn:aws:kms:us-east-1:111122223333:alias/k"]
  }

  expect_failures = [var.name_prefix, var.regions, var.archive_bucket_names, var.archive_kms_key_arns]
}
