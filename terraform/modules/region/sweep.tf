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
      period      = 3600
      comparison  = "GreaterThanOrEqualToThreshold"
      missing     = "notBreaching"
    }
    missed = {
      description = "The sweeper of ${var.name_prefix} has not run for three hours. Look at its schedule and at the schedule's role."
      metric_name = "Invocations"
      period      = 10800
      comparison  = "LessThanThreshold"
      # No data is what a sweeper that does not run looks like.
      missing = "breaching"
    }
  }
}

resource "aws_cloudwatch_metric_alarm" "sweep" {
  for_each = var.observability.alarms ? local.sweep_alarms : {}

  alarm_name          = "${var.name_prefix}-sweep-jobs-${each.key}"
  alarm_description   = each.value.description
  namespace           = "AWS/Lambda"
  metric_name         = each.value.metric_name
  dimensions          = { FunctionName = module.function["sweep_jobs"].name }
  statistic           = "Sum"
  period              = each.value.period
  evaluation_periods  = 1
  threshold           = 1
  comparison_operator = each.value.comparison
  treat_missing_data  = each.value.missing
  alarm_actions       = var.alarm_topic_arns
  ok_actions          = var.alarm_topic_arns
  tags                = local.tags
}
