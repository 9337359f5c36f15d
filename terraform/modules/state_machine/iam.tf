data "aws_caller_identity" "current" {}
data "aws_partition" "current" {}
data "aws_region" "current" {}

locals {
  # Composed, not read from the machine: its role is there before it.
  states_arn  = "arn:${data.aws_partition.current.partition}:states:${data.aws_region.current.id}:${data.aws_caller_identity.current.account_id}"
  machine_arn = "${local.states_arn}:stateMachine:${var.name}"
}

data "aws_iam_policy_document" "trust" {
  statement {
    sid     = "OnlyForThisMachine"
    actions = ["sts:AssumeRole"]

    principals {
      type        = "Service"
      identifiers = ["states.amazonaws.com"]
    }

    condition {
      test     = "StringEquals"
      variable = "aws:SourceAccount"
      values   = [data.aws_caller_identity.current.account_id]
    }

    condition {
      test     = "ArnLike"
      variable = "aws:SourceArn"
      # The second form is the machine as a map run's child executions name it.
      values = [local.machine_arn, "${local.machine_arn}/*"]
    }
  }
}

data "aws_iam_policy_document" "this" {
  statement {
    sid     = "InvokeFunctions"
    actions = ["lambda:InvokeFunction"]
    # With and without a version or alias.
    resources = sort(flatten([for arn in values(var.function_arns) : [arn, "${arn}:*"]]))
  }

  statement {
    # A Distributed Map starts its child executions through the API, as this role.
    sid       = "StartMapRuns"
    actions   = ["states:StartExecution"]
    resources = [local.machine_arn]
  }

  statement {
    sid     = "FollowMapRuns"
    actions = ["states:DescribeExecution", "states:RedriveExecution", "states:StopExecution"]
    # Executions of the machine, and (after the slash) child executions of its map runs by label.
    resources = [
      "${local.states_arn}:execution:${var.name}:*",
      "${local.states_arn}:execution:${var.name}/*",
    ]
  }

  statement {
    sid     = "ReadPlans"
    actions = ["s3:GetObject"]
    # The whole plan of a job, and what single targets still miss.
    resources = [for folder in ["plan", "proved"] : "${var.work.bucket_arn}/${var.work.prefix}*/${folder}/*"]
  }

  statement {
    # Step Functions reads results again that it has written in parts.
    sid = "WriteMapResults"
    actions = [
      "s3:AbortMultipartUpload",
      "s3:GetObject",
      "s3:ListMultipartUploadParts",
      "s3:PutObject",
    ]
    resources = ["${var.work.bucket_arn}/${var.work.prefix}*/results/*"]
  }

  statement {
    sid = "DeliverLogs"
    actions = [
      "logs:CreateLogDelivery",
      "logs:DeleteLogDelivery",
      "logs:DescribeLogGroups",
      "logs:DescribeResourcePolicies",
      "logs:GetLogDelivery",
      "logs:ListLogDeliveries",
      "logs:PutResourcePolicy",
      "logs:UpdateLogDelivery",
    ]
    # CloudWatch Logs has no resource level for log deliveries.
    resources = ["*"]
  }

  dynamic "statement" {
    for_each = var.tracing ? ["enabled"] : []

    content {
      sid = "WriteTraces"
      actions = [
        "xray:GetSamplingRules",
        "xray:GetSamplingTargets",
        "xray:PutTelemetryRecords",
        "xray:PutTraceSegments",
      ]
      # X-Ray has no resource level for these actions.
      resources = ["*"]
    }
  }

  dynamic "statement" {
    for_each = var.kms_key_arn == null ? [] : [var.kms_key_arn]

    content {
      sid       = "UseKeyOfHistoryAndWorkBucket"
      actions   = ["kms:Decrypt", "kms:GenerateDataKey"]
      resources = [statement.value]
    }
  }
}

resource "aws_iam_role" "this" {
  name                 = var.role_name
  description          = "Role of state machine ${var.name} in ${data.aws_region.current.id}"
  assume_role_policy   = data.aws_iam_policy_document.trust.json
  permissions_boundary = var.permissions_boundary
  tags                 = var.tags
}

resource "aws_iam_role_policy" "this" {
  name   = "calls"
  role   = aws_iam_role.this.id
  policy = data.aws_iam_policy_document.this.json
}
