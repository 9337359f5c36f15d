# The sweeper: every hour, delete what jobs left behind that nobody resumed.

resource "aws_scheduler_schedule_group" "this" {
  name = var.name_prefix
  tags = local.tags
}

resource "aws_scheduler_schedule" "sweep" {
  name                = "${var.name_prefix}-sweep-jobs"
  description         = "Deletes pending targets and plans of jobs that were not resumed within ${var.resume_window_hours} hours"
  group_name          = aws_scheduler_schedule_group.this.name
  schedule_expression = "rate(1 hour)"
  kms_key_arn         = var.storage_kms_key_arn

  flexible_time_window {
    mode = "OFF"
  }

  target {
    arn      = module.function["sweep_jobs"].arn
    role_arn = aws_iam_role.sweep_schedule.arn
    input    = jsonencode({})

    # The next run is an hour away and does the same work: no use in trying for longer.
    retry_policy {
      maximum_event_age_in_seconds = 3000
      maximum_retry_attempts       = 5
    }
  }
}

data "aws_iam_policy_document" "sweep_schedule_trust" {
  statement {
    sid     = "OnlyForThisScheduleGroup"
    actions = ["sts:AssumeRole"]

    principals {
      type        = "Service"
      identifiers = ["scheduler.amazonaws.com"]
    }

    condition {
      test     = "StringEquals"
      variable = "aws:SourceAccount"
      values   = [local.account]
    }

    condition {
      test     = "ArnEquals"
      variable = "aws:SourceArn"
      # EventBridge Scheduler names the group here, not the schedule.
      values = ["arn:${local.partition}:scheduler:${local.region}:${local.account}:schedule-group/${var.name_prefix}"]
    }
  }
}

data "aws_iam_policy_document" "sweep_schedule" {
  statement {
    sid       = "InvokeTheSweeper"
    actions   = ["lambda:InvokeFunction"]
    resources = ["arn:${local.partition}:lambda:${local.region}:${local.account}:function:${var.name_prefix}-sweep-jobs"]
  }

  dynamic "statement" {
    for_each = var.storage_kms_key_arn == null ? [] : [var.storage_kms_key_arn]

    content {
      sid       = "ReadTheSchedulesInput"
      actions   = ["kms:Decrypt"]
      resources = [statement.value]
    }
  }
}

resource "aws_iam_role" "sweep_schedule" {
  name                 = "${var.name_prefix}-sweep-schedule-${local.region}"
  description          = "Role of schedule ${var.name_prefix}-sweep-jobs in ${local.region}"
  assume_role_policy   = data.aws_iam_policy_document.sweep_schedule_trust.json
  permissions_boundary = var.permissions_boundary
  tags                 = local.tags
}

resource "aws_iam_role_policy" "sweep_schedule" {
  name   = "calls"
  role   = aws_iam_role.sweep_schedule.id
  policy = data.aws_iam_policy_document.sweep_schedule.json
}

locals {
  sweep_alarms = {
    failed = {
      description = "The sweeper of ${var.name_prefix} failed. Pending snapshots of abandoned jobs may stay: read the function's log."
      metric_name = "Errors"
      namespace   = "AWS/Lambda"
      metric_name = "Errors"
      dimensions  = { FunctionName = module.function["sweep_jobs"].name }
      period      = 3600
      comparison  = "GreaterThanOrEqualToThreshold"
      missing     = "notBreaching"
      silence     = []
    }
    refused = {
      description = "The schedule of ${var.name_prefix} could not start the sweeper in an hour. Look at the schedule's role and at the function."
      namespace   = "AWS/Scheduler"
      metric_name = "InvocationDroppedCount"
      dimensions  = { ScheduleGroup = aws_scheduler_schedule_group.this.name }
      period      = 3600
      comparison  = "GreaterThanOrEqualToThreshold"
      missing     = "notBreaching"
      silence     = []
    }
    missed = {
      description = "The sweeper of ${var.name_prefix} does not run any more: insufficient data means no run for three hours, or none yet. Look at its schedule."
      namespace   = "AWS/Lambda"
      metric_name = "Invocations"
      dimensions  = { FunctionName = module.function["sweep_jobs"].name }
      period      = 10800
      comparison  = "LessThanThreshold"
      # No data is what a sweeper that does not run looks like, and what a new deployment looks like, too. As "breaching"
      # it would ring with every first apply. An alarm begins with insufficient data, so going back there is what tells.
      missing = "missing"
      silence = var.alarm_topic_arns
    }
  }
}

resource "aws_cloudwatch_metric_alarm" "sweep" {
  for_each = var.observability.alarms ? local.sweep_alarms : {}

  alarm_name                = "${var.name_prefix}-sweep-jobs-${each.key}"
  alarm_description         = each.value.description
  namespace                 = each.value.namespace
  metric_name               = each.value.metric_name
  dimensions                = each.value.dimensions
  statistic                 = "Sum"
  period                    = each.value.period
  evaluation_periods        = 1
  threshold                 = 1
  comparison_operator       = each.value.comparison
  treat_missing_data        = each.value.missing
  alarm_actions             = var.alarm_topic_arns
  ok_actions                = var.alarm_topic_arns
  insufficient_data_actions = each.value.silence
  tags                      = local.tags
}
