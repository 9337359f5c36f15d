# What is global in the account: the policy of people and pipelines who run jobs. Attach it to their roles.

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
