# Backups by tag: what the functions are told of them, and when the machines run by themselves.

locals {
  # As blockferry.lifecycle.tags has them.
  backup_tags = merge(
    { delete_on = "DeleteOn", destinations = "Copy_Dest", keep = "KeepForever", source_snapshot = "Source_SnapshotId", type = "Type" },
    var.backups.tag_names,
  )
  mark_tag = "blockferry:expires"

  missed_backups_arn = "arn:${local.partition}:sqs:${local.region}:${local.account}:${var.name_prefix}-missed-backups"

  own_snapshot_arns = ["arn:${local.partition}:ec2:${local.region}::snapshot/*"]

  backup_settings = {
    BLOCKFERRY_BACKUPS = jsonencode({
      times        = var.backups.times
      weekdays     = var.backups.weekdays
      time_zone    = var.backups.time_zone
      retention    = var.backups.retention
      keep_newest  = var.backups.keep_newest
      act_at_once  = var.backups.act_at_once
      allow_as_of  = var.backups.allow_as_of
      tag_names    = var.backups.tag_names
      destinations = var.backups.destinations
    })
  }

  backup_schedules = merge(
    var.backups.backup ? {
      for time in var.backups.times : "backup-${replace(time, ":", "")}" => {
        operation   = "backup"
        description = "Makes the backups of ${time} that tags ask for"
        expression  = "cron(${tonumber(split(":", time)[1])} ${tonumber(split(":", time)[0])} ? * ${join(",", var.backups.weekdays)} *)"
      }
    } : {},
    var.backups.replicate ? {
      replicate = {
        operation   = "replicate"
        description = "Makes good what events of snapshots have missed"
        expression  = "rate(${var.backups.replicate_minutes} minutes)"
      }
    } : {},
    var.backups.expire ? {
      expire = {
        operation   = "expire"
        description = "Deletes backups by tag whose days are over"
        expression  = "cron(${tonumber(split(":", var.backups.expire_at)[1])} ${tonumber(split(":", var.backups.expire_at)[0])} * * ? *)"
      }
    } : {},
  )
}

locals {
  # Days between two runs at most, and one more: with one weekday a week, and every day a day.
  backup_gap_days = length(var.backups.weekdays) == 7 ? 2 : 7
}

resource "aws_scheduler_schedule" "backups" {
  for_each = local.backup_schedules

  name                         = "${var.name_prefix}-${each.key}"
  description                  = each.value.description
  group_name                   = aws_scheduler_schedule_group.this.name
  schedule_expression          = each.value.expression
  schedule_expression_timezone = var.backups.time_zone
  kms_key_arn                  = var.storage_kms_key_arn

  flexible_time_window {
    mode = "OFF"
  }

  target {
    arn      = module.machine[each.value.operation].arn
    role_arn = aws_iam_role.backup_schedules[0].arn
    input    = jsonencode({})

    # A run that is late is better than none; one of the next day would find the next run beside it.
    retry_policy {
      maximum_event_age_in_seconds = 14400
      maximum_retry_attempts       = 30
    }

    dead_letter_config {
      arn = local.missed_backups_arn
    }
  }
}

# Runs that could not be started: somebody has to know.
resource "aws_sqs_queue" "missed_backups" {
  count = length(local.backup_schedules) > 0 ? 1 : 0

  name                      = "${var.name_prefix}-missed-backups"
  message_retention_seconds = 1209600
  sqs_managed_sse_enabled   = true
  tags                      = local.tags
}

data "aws_iam_policy_document" "backup_schedules" {
  count = length(local.backup_schedules) > 0 ? 1 : 0

  statement {
    sid       = "StartTheMachines"
    actions   = ["states:StartExecution"]
    resources = [for operation in distinct(values(local.backup_schedules)[*].operation) : "arn:${local.partition}:states:${local.region}:${local.account}:stateMachine:${local.machine_names[operation]}"]
  }

  statement {
    sid       = "TellOfRunsThatCouldNotBeStarted"
    actions   = ["sqs:SendMessage"]
    resources = [local.missed_backups_arn]
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

resource "aws_iam_role" "backup_schedules" {
  count = length(local.backup_schedules) > 0 ? 1 : 0

  name                 = "${var.name_prefix}-backup-schedules-${local.region}"
  description          = "Role of the schedules of backups by tag in ${local.region}"
  assume_role_policy   = data.aws_iam_policy_document.sweep_schedule_trust.json
  permissions_boundary = var.permissions_boundary
  tags                 = local.tags
}

resource "aws_iam_role_policy" "backup_schedules" {
  count = length(local.backup_schedules) > 0 ? 1 : 0

  name   = "calls"
  role   = aws_iam_role.backup_schedules[0].id
  policy = data.aws_iam_policy_document.backup_schedules[0].json
}

locals {
  backup_alarms = {
    backups-missed = {
      on          = length(local.backup_schedules) > 0
      description = "A run that looks after backups could not be started: its message is in the queue ${var.name_prefix}-missed-backups. Start it by hand."
      namespace   = "AWS/SQS"
      metric_name = "ApproximateNumberOfMessagesVisible"
      dimensions  = { QueueName = "${var.name_prefix}-missed-backups" }
      statistic   = "Maximum"
      period      = 300
      evaluations = 1
      comparison  = "GreaterThanOrEqualToThreshold"
      missing     = "notBreaching"
      silence     = []
    }
    backup-silent = {
      on          = var.backups.backup
      description = "No run of ${var.name_prefix}-backup was started for ${local.backup_gap_days} days: look at its schedules."
      namespace   = "AWS/States"
      metric_name = "ExecutionsStarted"
      dimensions  = { StateMachineArn = module.machine["backup"].arn }
      statistic   = "Sum"
      period      = 86400
      evaluations = local.backup_gap_days
      comparison  = "LessThanThreshold"
      missing     = "missing"
      silence     = var.alarm_topic_arns
    }
    replicate-silent = {
      on          = var.backups.replicate
      description = "No run of ${var.name_prefix}-replicate was started for a day: look at its schedule."
      namespace   = "AWS/States"
      metric_name = "ExecutionsStarted"
      dimensions  = { StateMachineArn = module.machine["replicate"].arn }
      statistic   = "Sum"
      period      = 86400
      evaluations = 1
      comparison  = "LessThanThreshold"
      missing     = "missing"
      silence     = var.alarm_topic_arns
    }
    expire-silent = {
      on          = var.backups.expire
      description = "No run of ${var.name_prefix}-expire was started for a day and a half: look at its schedule."
      namespace   = "AWS/States"
      metric_name = "ExecutionsStarted"
      dimensions  = { StateMachineArn = module.machine["expire"].arn }
      statistic   = "Sum"
      period      = 43200
      evaluations = 3
      comparison  = "LessThanThreshold"
      # As of the sweeper: no data is what a machine that never runs looks like, and a new deployment, too.
      missing = "missing"
      silence = var.alarm_topic_arns
    }
  }
}

resource "aws_cloudwatch_metric_alarm" "backups" {
  for_each = { for name, alarm in local.backup_alarms : name => alarm if alarm.on && var.observability.alarms }

  alarm_name                = "${var.name_prefix}-${each.key}"
  alarm_description         = each.value.description
  namespace                 = each.value.namespace
  metric_name               = each.value.metric_name
  dimensions                = each.value.dimensions
  statistic                 = each.value.statistic
  period                    = each.value.period
  evaluation_periods        = each.value.evaluations
  threshold                 = 1
  comparison_operator       = each.value.comparison
  treat_missing_data        = each.value.missing
  alarm_actions             = var.alarm_topic_arns
  ok_actions                = var.alarm_topic_arns
  insufficient_data_actions = each.value.silence
  tags                      = local.tags
}

# Events of EC2 wake replicate as soon as there is something new. They are best effort: the schedule makes good the rest.
resource "aws_cloudwatch_event_rule" "completed" {
  count = var.backups.replicate ? 1 : 0

  name        = "${var.name_prefix}-backups-completed"
  description = "Snapshots of volumes and of instances that are completed"
  tags        = local.tags

  event_pattern = jsonencode({
    source      = ["aws.ec2"]
    detail-type = ["EBS Snapshot Notification", "EBS Multi-Volume Snapshots Completion Status"]
    detail      = { event = ["createSnapshot", "createSnapshots"], result = ["succeeded"] }
  })
}

resource "aws_cloudwatch_event_target" "replicate" {
  count = var.backups.replicate ? 1 : 0

  rule     = aws_cloudwatch_event_rule.completed[0].name
  arn      = module.machine["replicate"].arn
  role_arn = aws_iam_role.backup_events[0].arn

  retry_policy {
    maximum_event_age_in_seconds = 3600
    maximum_retry_attempts       = 10
  }
}

data "aws_iam_policy_document" "backup_events_trust" {
  statement {
    sid     = "OnlyForThisRule"
    actions = ["sts:AssumeRole"]

    principals {
      type        = "Service"
      identifiers = ["events.amazonaws.com"]
    }

    condition {
      test     = "StringEquals"
      variable = "aws:SourceAccount"
      values   = [local.account]
    }

    condition {
      test     = "ArnEquals"
      variable = "aws:SourceArn"
      values   = ["arn:${local.partition}:events:${local.region}:${local.account}:rule/${var.name_prefix}-backups-completed"]
    }
  }
}

data "aws_iam_policy_document" "backup_events" {
  statement {
    sid       = "StartReplicate"
    actions   = ["states:StartExecution"]
    resources = ["arn:${local.partition}:states:${local.region}:${local.account}:stateMachine:${local.machine_names["replicate"]}"]
  }
}

resource "aws_iam_role" "backup_events" {
  count = var.backups.replicate ? 1 : 0

  name                 = "${var.name_prefix}-backup-events-${local.region}"
  description          = "Role of the rule ${var.name_prefix}-backups-completed in ${local.region}"
  assume_role_policy   = data.aws_iam_policy_document.backup_events_trust.json
  permissions_boundary = var.permissions_boundary
  tags                 = local.tags
}

resource "aws_iam_role_policy" "backup_events" {
  count = var.backups.replicate ? 1 : 0

  name   = "calls"
  role   = aws_iam_role.backup_events[0].id
  policy = data.aws_iam_policy_document.backup_events.json
}
