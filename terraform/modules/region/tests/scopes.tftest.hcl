# What Terraform grants a function is narrow: by ARN, by tag, by the service in between.
#
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

# The modules within have tests of their own. The policies of the functions are made in this one.
override_module {
  target  = module.function
  outputs = { arn = "arn:aws:lambda:us-east-1:111122223333:function:overridden", name = "overridden", role_arn = "arn:aws:iam::111122223333:role/overridden", log_group_name = "overridden" }
}

override_module {
  target  = module.machine
  outputs = { arn = "arn:aws:states:us-east-1:111122223333:stateMachine:overridden", name = "overridden", role_arn = "arn:aws:iam::111122223333:role/overridden", log_group_name = "overridden", alarm_arns = [] }
}

variables {
  name_prefix       = "blockferry"
  artifacts_dir     = "../../tests/artifacts"
  definitions_dir   = "../../../statemachines"
  trusted_role_arns = ["arn:aws:iam::123456789012:role/blockferry-access"]
}

run "grants_are_narrow" {
  command = plan

  assert {
    condition = alltrue(flatten([
      for name, document in data.aws_iam_policy_document.function : [
        for statement in jsondecode(document.json).Statement : [
          for action in flatten([statement.Action]) : startswith(action, "ec2:Describe") || contains(["ec2:GetEbsEncryptionByDefault", "lambda:GetAccountSettings"], action)
        ] if contains(flatten([statement.Resource]), "*")
      ]
    ]))
    error_message = "Only the Describe actions of EC2, the account's default of EBS and its settings of Lambda have no resource level."
  }

  assert {
    condition = alltrue(flatten([
      for name, document in data.aws_iam_policy_document.function : [
        for statement in jsondecode(document.json).Statement : [
          for action in flatten([statement.Action]) : !strcontains(action, "*")
        ]
      ]
    ]))
    error_message = "Every action must be named."
  }

  assert {
    condition = alltrue(flatten([
      for name, document in data.aws_iam_policy_document.function : [
        for statement in jsondecode(document.json).Statement :
        try(statement.Condition, {}) == { Null = { "aws:ResourceTag/blockferry:job-id" = "false" } }
        if length(setintersection(flatten([statement.Action]), ["ebs:PutSnapshotBlock", "ebs:CompleteSnapshot"])) > 0
      ]
    ]))
    error_message = "Changing a snapshot must ask for the job's tag."
  }

  assert {
    condition = alltrue(flatten([
      for name, document in data.aws_iam_policy_document.function : [
        for statement in jsondecode(document.json).Statement :
        try(statement.Condition, {}) == { Null = { "aws:ResourceTag/blockferry:execution" = "false", "aws:ResourceTag/blockferry:proved-snapshot-id" = "true" } }
        if contains(flatten([statement.Action]), "ec2:DeleteSnapshot") && name != "delete_expired"
      ]
    ]))
    error_message = "Deleting a snapshot must ask for the tag of its execution, and for none of a proof."
  }

  assert {
    condition = one([
      for statement in jsondecode(data.aws_iam_policy_document.function["delete_expired"].json).Statement : [statement.Resource, statement.Condition] if statement.Action == "ec2:DeleteSnapshot"
      ]) == ["arn:aws:ec2:us-east-1::snapshot/*", {
      StringEquals = { "aws:ResourceTag/Type" = "Automated" }
      Null         = { "aws:ResourceTag/KeepForever" = "true", "aws:ResourceTag/blockferry:expires" = "false" }
    }]
    error_message = "Backups must be deleted in this Region only, with the mark of an earlier run, and never those that are kept for ever."
  }

  assert {
    condition = one([
      for statement in jsondecode(data.aws_iam_policy_document.function["mark_expired"].json).Statement : [statement.Resource, statement.Condition] if statement.Sid == "MarkBackups"
      ]) == ["arn:aws:ec2:us-east-1::snapshot/*", {
      "ForAllValues:StringEquals" = { "aws:TagKeys" = "blockferry:expires" }
      Null                        = { "aws:TagKeys" = "false" }
      StringEquals                = { "aws:ResourceTag/Type" = "Automated" }
    }]
    error_message = "Whoever marks backups must be able to set the mark only."
  }

  assert {
    condition = toset([
      for name, document in data.aws_iam_policy_document.function : name if anytrue([
        for statement in jsondecode(document.json).Statement : contains(flatten([statement.Action]), "ec2:CreateSnapshot")
      ])
    ]) == toset(["take_backups"])
    error_message = "Only one function makes snapshots of volumes."
  }

  assert {
    condition = one([
      for statement in jsondecode(data.aws_iam_policy_document.function["take_backups"].json).Statement : [statement.Resource, statement.Condition] if statement.Sid == "MakeBackupsWithTheirTags"
      ]) == ["arn:aws:ec2:us-east-1::snapshot/*", {
      StringEquals = { "aws:RequestTag/Type" = "Automated" }
      Null         = { "aws:RequestTag/DeleteOn" = "false" }
    }]
    error_message = "A backup must be made with the tags by which it is deleted one day."
  }

  assert {
    condition = one([
      for statement in jsondecode(data.aws_iam_policy_document.function["plan_transfer"].json).Statement : statement.Condition if statement.Action == "ebs:StartSnapshot"
    ]) == { Null = { "aws:RequestTag/blockferry:job-id" = "false", "aws:RequestTag/blockferry:execution" = "false" } }
    error_message = "A snapshot must be started with the tags of its job and execution."
  }

  assert {
    condition = alltrue(flatten([
      for name, document in data.aws_iam_policy_document.function : [
        for statement in jsondecode(document.json).Statement :
        statement.Resource == "arn:aws:s3:::blockferry-work-111122223333-us-east-1/jobs/*"
        if contains(flatten([statement.Action]), "s3:GetObject") && !contains(["MakeRawImages", "ReadArchives", "ReadImages", "SeeWhatRuns"], statement.Sid)
      ]
    ]))
    error_message = "Objects must be those of jobs."
  }

  assert {
    condition = jsonencode({
      for name, document in data.aws_iam_policy_document.function : name => {
        for statement in jsondecode(document.json).Statement :
        statement.Action => sort([for arn in flatten([statement.Resource]) : trimprefix(arn, "arn:aws:s3:::blockferry-work-111122223333-us-east-1/jobs/*/*/")])
        if contains(["WriteItsOwnRecords", "DeleteRecords"], statement.Sid)
      }
      }) == jsonencode({
      check_targets         = {}
      complete_transfer     = { "s3:PutObject" = ["proved/*"], "s3:DeleteObject" = ["moved/failed/*"] }
      conclude_verification = { "s3:PutObject" = ["receipt.json", "report.md"] }
      copy_backups          = { "s3:PutObject" = ["claims/*", "copy_backups/*"] }
      delete_expired        = { "s3:PutObject" = ["delete_expired/*"] }
      inspect_snapshots     = { "s3:PutObject" = ["receipt.json", "report.md"] }
      mark_expired          = { "s3:PutObject" = ["mark_expired/*"] }
      move_blocks           = { "s3:PutObject" = ["moved/*"] }
      plan_backup           = { "s3:PutObject" = ["plan/*"] }
      plan_expiry           = { "s3:PutObject" = ["plan/*"] }
      plan_replication      = { "s3:PutObject" = ["claims/*", "plan/*"] }
      plan_transfer         = { "s3:PutObject" = ["plan/*"] }
      plan_verification     = { "s3:PutObject" = ["plan/*"] }
      sweep_jobs            = { "s3:PutObject" = ["swept.json"], "s3:DeleteObject" = ["*"] }
      take_backups          = { "s3:PutObject" = ["claims/*", "take_backups/*"] }
      unpack_image          = { "s3:PutObject" = ["image/*"], "s3:DeleteObject" = ["image/*"] }
      verify_blocks         = { "s3:PutObject" = ["moved/*"] }
      write_receipt         = { "s3:PutObject" = ["receipt.json", "report.md"], "s3:DeleteObject" = ["image/*"] }
      write_report          = { "s3:PutObject" = ["report.json", "report.md"] }
    })
    error_message = "Each function must write below its own prefix only."
  }

  assert {
    condition = jsonencode([
      for statement in jsondecode(data.aws_iam_policy_document.bucket["work"].json).Statement :
      [statement.Effect, sort(statement.Action), statement.Resource, length(statement.Condition.ArnNotEquals["aws:PrincipalArn"])] if statement.Sid == "OnlyTheDeploymentWrites"
    ]) == jsonencode([["Deny", ["s3:DeleteObject", "s3:DeleteObjectVersion", "s3:PutObject", "s3:PutObjectTagging", "s3:ReplicateObject"], ["arn:aws:s3:::blockferry-work-111122223333-us-east-1/running/leases/*", "arn:aws:s3:::blockferry-work-111122223333-us-east-1/jobs/*"], 29]])
    error_message = "Nobody but the nineteen functions and ten machines may write records of jobs."
  }

  assert {
    condition     = !strcontains(data.aws_iam_policy_document.bucket["archive"].json, "OnlyTheDeploymentWrites")
    error_message = "Archives are nobody's records."
  }

  assert {
    condition = alltrue(flatten([
      for name, document in data.aws_iam_policy_document.function : [
        for statement in jsondecode(document.json).Statement :
        statement.Resource == "arn:aws:s3:::blockferry-work-111122223333-us-east-1" && keys(statement.Condition) == ["StringLikeIfExists"] &&
        toset(flatten([statement.Condition.StringLikeIfExists["s3:prefix"]])) == toset(contains(["move_blocks", "plan_transfer"], name) ? ["jobs/*", "running/*"] : ["jobs/*"])
        if statement.Action == "s3:ListBucket" && !contains(["FindArchives", "FindImages"], statement.Sid)
      ]
    ]))
    error_message = "Only keys of jobs may be listed, and what runs by those who keep a pace."
  }

  assert {
    condition = toset(flatten([
      for name, document in data.aws_iam_policy_document.function : [
        for statement in jsondecode(document.json).Statement : [
          for action in flatten([statement.Action]) : "${name} ${action} ${trimprefix(statement.Resource, "arn:aws:s3:::blockferry-work-111122223333-us-east-1/")}"
        ] if contains(["SeeWhatRuns", "TellWhatRuns"], statement.Sid)
      ]
      ])) == toset([
      "move_blocks s3:DeleteObject running/leases/*",
      "move_blocks s3:GetObject running/*",
      "move_blocks s3:PutObject running/leases/*",
      "plan_transfer s3:GetObject running/*",
    ])
    error_message = "Workers must tell that they run and see who else does, and only they."
  }

  assert {
    condition = toset([
      for name, document in data.aws_iam_policy_document.function : name if anytrue([
        for statement in jsondecode(document.json).Statement : contains(["ReadImages", "FindImages"], statement.Sid)
      ])
    ]) == toset(["move_blocks", "plan_transfer", "unpack_image"])
    error_message = "Only those that read images may read other objects than those of jobs."
  }

  assert {
    condition = toset(flatten([
      for name, document in data.aws_iam_policy_document.function : [
        for statement in jsondecode(document.json).Statement : [
          for pair in setproduct(flatten([statement.Action]), flatten([statement.Resource])) :
          "${name} ${pair[0]} ${pair[1]}" if statement.Condition == { StringEquals = { "aws:ResourceAccount" = "111122223333" } }
        ] if contains(["WriteArchives", "DeleteUnfinishedArchives"], statement.Sid)
      ]
      ])) == toset(flatten([
      for name, allowed in {
        "plan_transfer s3:PutObject"            = ["unfinished.json"]
        "plan_transfer s3:PutObjectTagging"     = ["unfinished.json"]
        "move_blocks s3:PutObject"              = ["index/*.idx", "segments/*.zst"]
        "move_blocks s3:PutObjectTagging"       = ["index/*.idx", "segments/*.zst"]
        "complete_transfer s3:PutObject"        = ["index/*.idx", "manifest.json", "unfinished.json"]
        "complete_transfer s3:PutObjectTagging" = ["index/*.idx", "manifest.json", "unfinished.json"]
        "complete_transfer s3:DeleteObject"     = ["index/*.idx", "segments/*.zst", "unfinished.json"]
        "sweep_jobs s3:DeleteObject"            = ["index/*.idx", "segments/*.zst", "unfinished.json"]
      } : [for object in allowed : "${name} arn:aws:s3:::blockferry-archive-111122223333-*/*${object}"]
    ]))
    error_message = "Archives must be written and deleted by the names of their objects, in the buckets of this deployment, and manifests never deleted."
  }

  assert {
    condition = alltrue(flatten([
      for name, document in data.aws_iam_policy_document.function : [
        for statement in jsondecode(document.json).Statement :
        statement.Condition == { StringEquals = { "aws:ResourceAccount" = "111122223333" } } && startswith(statement.Resource, "arn:aws:s3:::*")
        if contains(["ReadImages", "FindImages"], statement.Sid)
      ]
    ]))
    error_message = "Images must be in buckets of this account."
  }

  assert {
    condition = alltrue(flatten([
      for name, document in data.aws_iam_policy_document.function : [
        for statement in jsondecode(document.json).Statement :
        statement.Condition.StringLike == { "kms:ViaService" = contains(["DecryptImagesThroughS3", "UseKeysOfArchivesThroughS3"], statement.Sid) ? "s3.*.amazonaws.com" : "ec2.*.amazonaws.com" } && statement.Resource == "arn:aws:kms:*:111122223333:key/*"
        if strcontains(jsonencode(statement.Action), "kms:") && statement.Sid != "LookAtKeysOfSnapshots"
      ]
    ]))
    error_message = "A key of this account may be used through EBS, and for images and archives through S3."
  }

  assert {
    condition = flatten([
      for name, document in data.aws_iam_policy_document.function : [
        for statement in jsondecode(document.json).Statement : [name, statement.Action] if statement.Sid == "LookAtKeysOfSnapshots"
      ]
    ]) == ["inspect_snapshots", "kms:DescribeKey"]
    error_message = "Without a service in between keys may only be looked at."
  }

  assert {
    condition = alltrue(flatten([
      for name, document in data.aws_iam_policy_document.function : [
        for statement in jsondecode(document.json).Statement :
        statement.Condition.Bool == { "kms:GrantIsForAWSResource" = "true" } if statement.Action == "kms:CreateGrant"
      ]
    ]))
    error_message = "Grants must be for AWS resources only."
  }

  assert {
    condition = jsondecode(aws_iam_role.sweep_schedule.assume_role_policy).Statement[0].Condition == {
      ArnEquals    = { "aws:SourceArn" = "arn:aws:scheduler:us-east-1:111122223333:schedule-group/blockferry" }
      StringEquals = { "aws:SourceAccount" = "111122223333" }
    }
    error_message = "The trust policy must name this account and this schedule group."
  }

  assert {
    condition     = one(jsondecode(aws_iam_role_policy.sweep_schedule.policy).Statement).Resource == "arn:aws:lambda:us-east-1:111122223333:function:blockferry-sweep-jobs"
    error_message = "The schedule must invoke the sweeper only."
  }

  assert {
    condition = alltrue([
      for kind, document in data.aws_iam_policy_document.bucket :
      one([for s in jsondecode(document.json).Statement : s.Condition if s.Sid == "OnlyOverTls" && s.Effect == "Deny"]) == { Bool = { "aws:SecureTransport" = "false" } }
    ])
    error_message = "Both buckets must deny requests without TLS."
  }
}

run "named_keys_replace_the_keys_of_the_account" {
  command = plan

  variables {
    snapshot_kms_key_arns = ["arn:aws:kms:us-east-1:123456789012:key/11111111-2222-3333-4444-555555555555"]
  }

  assert {
    condition = alltrue(flatten([
      for name, document in data.aws_iam_policy_document.function : [
        for statement in jsondecode(document.json).Statement :
        statement.Resource == "arn:aws:kms:us-east-1:123456789012:key/11111111-2222-3333-4444-555555555555" if strcontains(jsonencode(statement.Action), "kms:") && !contains(["DecryptImagesThroughS3", "UseKeysOfArchivesThroughS3"], statement.Sid)
      ]
    ]))
    error_message = "Only the named key may be used."
  }
}

run "without_trusted_roles_and_keys_nothing_is_assumed_and_nothing_decrypted" {
  command = plan

  variables {
    snapshot_kms_key_arns = []
    trusted_role_arns     = []
    image_bucket_names    = []
    archive_kms_key_arns  = []
  }

  assert {
    condition = alltrue([
      for name, document in data.aws_iam_policy_document.function : !strcontains(document.json, "sts:AssumeRole") && !strcontains(document.json, "kms:")
    ])
    error_message = "Nothing to assume and no key to use: nothing to permit."
  }
}

run "images_can_be_narrowed_to_buckets" {
  command = plan

  variables {
    image_bucket_names = ["golden"]
  }

  assert {
    condition = toset([
      for statement in jsondecode(data.aws_iam_policy_document.function["move_blocks"].json).Statement : statement.Resource if contains(["ReadImages", "FindImages"], statement.Sid)
    ]) == toset(["arn:aws:s3:::golden", "arn:aws:s3:::golden/*"])
    error_message = "Only images of the named bucket may be read."
  }
}

run "raw_images_are_made_in_named_buckets_only" {
  command = plan

  variables {
    restore_bucket_names = ["raw"]
  }

  assert {
    condition = toset(flatten([
      for name, document in data.aws_iam_policy_document.function : [
        for statement in jsondecode(document.json).Statement : [
          for action in flatten([statement.Action]) : "${name} ${trimprefix(action, "s3:")} ${trimprefix(statement.Resource, "arn:aws:s3:::")}" if statement.Condition == { StringEquals = { "aws:ResourceAccount" = "111122223333" } }
        ] if contains(["MakeRawImages", "FindRawImages"], statement.Sid)
      ]
      ])) == toset(flatten([
      for name, allowed in {
        "plan_transfer"     = ["AbortMultipartUpload raw/*", "GetObject raw/*", "ListMultipartUploadParts raw/*", "PutObject raw/*", "PutObjectTagging raw/*", "ListBucket raw", "ListBucketMultipartUploads raw"]
        "move_blocks"       = ["GetObject raw/*", "ListMultipartUploadParts raw/*", "PutObject raw/*", "ListBucket raw"]
        "complete_transfer" = ["AbortMultipartUpload raw/*", "GetObject raw/*", "ListMultipartUploadParts raw/*", "PutObject raw/*", "PutObjectTagging raw/*", "ListBucket raw", "ListBucketMultipartUploads raw"]
        "check_targets"     = ["GetObject raw/*", "ListBucket raw"]
        "write_receipt"     = ["GetObject raw/*", "ListBucket raw"]
        "sweep_jobs"        = ["AbortMultipartUpload raw/*", "GetObject raw/*", "ListMultipartUploadParts raw/*", "ListBucket raw", "ListBucketMultipartUploads raw"]
      } : [for each in allowed : "${name} ${each}"]
    ]))
    error_message = "Raw images must be made by those that make them, in the named bucket, and never be deleted."
  }
}

run "without_a_named_bucket_no_raw_image_is_made" {
  command = plan

  assert {
    condition     = alltrue([for document in data.aws_iam_policy_document.function : !strcontains(document.json, "RawImages")])
    error_message = "No bucket is named: nothing may be written outside of archives."
  }
}

run "a_key_of_the_work_bucket_is_used_through_s3_only" {
  command = plan

  variables {
    snapshot_kms_key_arns = []
    image_bucket_names    = []
    archive_kms_key_arns  = []
    storage_kms_key_arn   = "arn:aws:kms:us-east-1:111122223333:key/11111111-2222-3333-4444-555555555555"
  }

  assert {
    condition = alltrue([
      for name, document in data.aws_iam_policy_document.function : one([
        for statement in jsondecode(document.json).Statement : statement.Condition if strcontains(jsonencode(statement.Action), "kms:")
      ]) == { StringEquals = { "kms:ViaService" = "s3.us-east-1.amazonaws.com" } }
    ])
    error_message = "Every function must reach the encrypted bucket, and use its key for nothing else."
  }
}

run "schedules_of_backups_start_their_machines_only" {
  command = plan

  variables {
    backups = { backup = true, replicate = true, expire = true }
  }

  assert {
    condition = toset(flatten([
      for statement in jsondecode(data.aws_iam_policy_document.backup_schedules[0].json).Statement : statement.Resource if statement.Sid == "StartTheMachines"
      ])) == toset([
      "arn:aws:states:us-east-1:111122223333:stateMachine:blockferry-backup",
      "arn:aws:states:us-east-1:111122223333:stateMachine:blockferry-expire",
      "arn:aws:states:us-east-1:111122223333:stateMachine:blockferry-replicate",
    ])
    error_message = "Schedules must start these machines only."
  }
}
