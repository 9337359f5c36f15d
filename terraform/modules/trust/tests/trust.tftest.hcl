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

variables {
  trusted     = { account_id = "111122223333" }
  external_id = "ferry-7f3a2c"
  source_side = { regions = ["us-east-1"] }
}

run "a_source_side_reads_only_and_is_assumed_with_the_external_id_only" {
  command = plan

  assert {
    condition = jsondecode(aws_iam_role.this.assume_role_policy).Statement == [{
      Action = "sts:AssumeRole"
      Condition = {
        ArnLike      = { "aws:PrincipalArn" = "arn:aws:iam::111122223333:role/blockferry-*" }
        StringEquals = { "sts:ExternalId" = "ferry-7f3a2c" }
      }
      Effect    = "Allow"
      Principal = { AWS = "arn:aws:iam::111122223333:root" }
      Sid       = "FunctionsOfTheDeployment"
    }]
    error_message = "The trust policy must ask for the account, the role names and the external id."
  }

  assert {
    condition = toset(flatten([for statement in jsondecode(aws_iam_role_policy.this.policy).Statement : statement.Action])) == toset([
      "ebs:GetSnapshotBlock", "ebs:ListChangedBlocks", "ebs:ListSnapshotBlocks", "ec2:DescribeSnapshots",
    ])
    error_message = "The source side must read only."
  }

  assert {
    condition = one([
      for statement in jsondecode(aws_iam_role_policy.this.policy).Statement : statement.Resource if statement.Sid == "ReadSnapshots"
    ]) == "arn:aws:ec2:us-east-1::snapshot/*"
    error_message = "The source side must read in its regions only."
  }
}

run "a_source_side_reads_images_of_the_named_buckets_only" {
  command = plan

  variables {
    source_side = { regions = ["us-east-1"], image_bucket_names = ["golden"] }
  }

  assert {
    condition = toset(flatten([
      for statement in jsondecode(aws_iam_role_policy.this.policy).Statement : statement.Resource if statement.Sid == "ReadImages"
    ])) == toset(["arn:aws:s3:::golden", "arn:aws:s3:::golden/*"])
    error_message = "Only images of the named buckets may be read."
  }
}

run "a_target_side_changes_only_snapshots_of_jobs_and_reads_no_block" {
  command = plan

  variables {
    source_side = null
    target_side = { regions = ["eu-west-1"] }
  }

  assert {
    condition = toset(flatten([for statement in jsondecode(aws_iam_role_policy.this.policy).Statement : statement.Action])) == toset([
      "ebs:CompleteSnapshot", "ebs:PutSnapshotBlock", "ebs:StartSnapshot",
      "ec2:CreateTags", "ec2:DeleteSnapshot", "ec2:DescribeSnapshots", "ec2:GetEbsEncryptionByDefault",
    ])
    error_message = "The target side must write only."
  }

  assert {
    condition = one([
      for statement in jsondecode(aws_iam_role_policy.this.policy).Statement : statement.Condition if try(contains(statement.Action, "ebs:CompleteSnapshot"), false)
    ]) == { Null = { "aws:ResourceTag/blockferry:job-id" = "false" } }
    error_message = "The target side must change snapshots of jobs only."
  }

  assert {
    condition = one([
      for statement in jsondecode(aws_iam_role_policy.this.policy).Statement : statement.Condition if statement.Action == "ec2:DeleteSnapshot"
    ]) == { Null = { "aws:ResourceTag/blockferry:execution" = "false", "aws:ResourceTag/blockferry:proved-snapshot-id" = "true" } }
    error_message = "The target side must delete what a job has started and not proved, and nothing else."
  }
}

run "a_source_side_can_be_narrowed_to_a_tag_and_keys_are_used_through_ebs_only" {
  command = plan

  variables {
    source_side = {
      regions      = ["us-east-1"]
      required_tag = { key = "ferry", value = "yes" }
      kms_key_arns = ["arn:aws:kms:us-east-1:123456789012:key/11111111-2222-3333-4444-555555555555"]
    }
    target_side = { regions = ["eu-west-1"], kms_key_arns = ["arn:aws:kms:eu-west-1:123456789012:key/11111111-2222-3333-4444-555555555555"] }
  }

  assert {
    condition = alltrue([
      for statement in jsondecode(aws_iam_role_policy.this.policy).Statement :
      startswith(one(values(statement.Condition.StringEquals)), "ec2.") if strcontains(jsonencode(statement.Action), "kms:")
    ])
    error_message = "Every use of a key must come through EBS."
  }

  assert {
    condition = one([
      for statement in jsondecode(aws_iam_role_policy.this.policy).Statement : statement.Condition.Bool if statement.Action == "kms:CreateGrant"
    ]) == { "kms:GrantIsForAWSResource" = "true" }
    error_message = "Grants must be for AWS resources only."
  }

  assert {
    condition = !contains(flatten([
      for statement in jsondecode(aws_iam_role_policy.this.policy).Statement : statement.Action
      if contains(flatten([statement.Resource]), "arn:aws:kms:us-east-1:123456789012:key/11111111-2222-3333-4444-555555555555")
    ]), "kms:Encrypt")
    error_message = "The source's key must decrypt only."
  }

  assert {
    condition = one([
      for statement in jsondecode(aws_iam_role_policy.this.policy).Statement : statement.Condition if statement.Sid == "ReadSnapshots"
    ]) == { StringEquals = { "aws:ResourceTag/ferry" = "yes" } }
    error_message = "Only tagged snapshots may be read."
  }
}

run "an_archive_side_reaches_objects_of_archives_only_and_deletes_no_manifest" {
  command = plan

  variables {
    source_side = null
    archive_side = {
      bucket_names = ["vault"]
      regions      = ["eu-west-1"]
      kms_key_arns = ["arn:aws:kms:eu-west-1:123456789012:key/11111111-2222-3333-4444-555555555555"]
    }
  }

  assert {
    condition = toset(flatten([for statement in jsondecode(aws_iam_role_policy.this.policy).Statement : statement.Action])) == toset([
      "kms:Decrypt", "kms:GenerateDataKey", "s3:DeleteObject", "s3:GetObject", "s3:GetObjectTagging", "s3:ListBucket",
      "s3:PutObject", "s3:PutObjectTagging",
    ])
    error_message = "The archive side must reach archives only, and no snapshot."
  }

  assert {
    condition = one([
      for statement in jsondecode(aws_iam_role_policy.this.policy).Statement : toset(statement.Resource) if statement.Sid == "ReadAndWriteArchives"
    ]) == toset(["arn:aws:s3:::vault/*index/*.idx", "arn:aws:s3:::vault/*manifest.json", "arn:aws:s3:::vault/*segments/*.zst", "arn:aws:s3:::vault/*unfinished.json"])
    error_message = "Only objects of archives in the named buckets may be read and written."
  }

  assert {
    condition = one([
      for statement in jsondecode(aws_iam_role_policy.this.policy).Statement : toset(statement.Resource) if statement.Sid == "DeleteUnfinishedArchives"
    ]) == toset(["arn:aws:s3:::vault/*index/*.idx", "arn:aws:s3:::vault/*segments/*.zst", "arn:aws:s3:::vault/*unfinished.json"])
    error_message = "A manifest must never be deleted."
  }

  assert {
    condition = one([
      for statement in jsondecode(aws_iam_role_policy.this.policy).Statement : statement.Condition if statement.Sid == "UseKeysOfArchivesThroughS3"
    ]) == { StringEquals = { "kms:ViaService" = "s3.eu-west-1.amazonaws.com" } }
    error_message = "Keys of archives must be used through S3 in the regions of the buckets only."
  }
}

run "an_archive_side_without_a_bucket_or_with_a_key_of_no_region_is_refused" {
  command = plan

  variables {
    archive_side = { bucket_names = [], kms_key_arns = ["arn:aws:kms:eu-west-1:123456789012:key/1"] }
  }

  expect_failures = [var.archive_side]
}

run "a_misspelt_attribute_of_an_archive_side_is_refused" {
  command = plan

  variables {
    archive_side = { bucket_names = ["vault"], kms_key_arn = "arn:aws:kms:eu-west-1:123456789012:key/1" }
  }

  expect_failures = [var.archive_side]
}

run "a_role_for_nothing_is_refused" {
  command = plan

  variables {
    source_side = null
  }

  expect_failures = [var.target_side]
}

run "wrong_values_are_refused_by_name" {
  command = plan

  variables {
    name        = "with space"
    trusted     = { account_id = "blockferry" }
    external_id = "1234"
    source_side = { regions = ["us-east-1"], kms_key_arns = ["arn:aws:kms:us-east-1:123456789012:alias/backup"] }
  }

  expect_failures = [var.name, var.trusted, var.external_id, var.source_side]
}

run "a_side_without_a_region_is_refused" {
  command = plan

  variables {
    target_side = { regions = [] }
  }

  expect_failures = [var.target_side]
}

run "a_misspelt_attribute_of_a_source_is_refused" {
  command = plan

  variables {
    trusted     = { account_id = "111122223333", prefix = "ferry" }
    source_side = { regions = ["us-east-1"], requird_tag = { key = "ferry", value = "yes" } }
  }

  expect_failures = [var.trusted, var.source_side]
}

run "a_misspelt_attribute_of_a_target_is_refused" {
  command = plan

  variables {
    target_side = { regions = ["eu-west-1"], kms_key_arn = "arn:aws:kms:eu-west-1:123456789012:key/1" }
  }

  expect_failures = [var.target_side]
}

run "a_tag_without_a_value_is_refused" {
  command = plan

  variables {
    source_side = { regions = ["us-east-1"], required_tag = { key = "ferry" } }
  }

  expect_failures = [var.source_side]
}

run "a_region_that_is_no_list_is_refused" {
  command = plan

  variables {
    target_side = { regions = "eu-west-1" }
  }

  expect_failures = [var.target_side]
}
