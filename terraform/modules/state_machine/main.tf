resource "aws_sfn_state_machine" "this" {
  name     = var.name
  type     = "STANDARD"
  role_arn = aws_iam_role.this.arn
  tags     = var.tags

  # The ARNs of Step Functions' own integrations name the partition, which differs in China and GovCloud.
  definition = replace(
    templatefile(var.definition_file, {
      for placeholder, arn in var.function_arns : "${placeholder}_arn" => arn
    }),
    "\"arn:aws:states:::",
    "\"arn:${data.aws_partition.current.partition}:states:::",
  )

  logging_configuration {
    level                  = var.log_level
    include_execution_data = var.log_execution_data
    log_destination        = "${aws_cloudwatch_log_group.this.arn}:*"
  }

  tracing_configuration {
    enabled = var.tracing
  }

  dynamic "encryption_configuration" {
    for_each = var.kms_key_arn == null ? [] : [var.kms_key_arn]

    content {
      type                              = "CUSTOMER_MANAGED_KMS_KEY"
      kms_key_id                        = encryption_configuration.value
      kms_data_key_reuse_period_seconds = 300
    }
  }

  # Step Functions checks at creation that the role may deliver logs.
  depends_on = [aws_iam_role_policy.this]
}

resource "aws_cloudwatch_log_group" "this" {
  # Groups under this prefix do not use up the 5120 characters of the log resource policy.
  name              = "/aws/vendedlogs/states/${var.name}"
  retention_in_days = var.log_retention_in_days
  kms_key_id        = var.kms_key_arn
  tags              = var.tags
}

locals {
  alarms = {
    ExecutionsFailed   = "failed. Read the execution's error, remove its cause and redrive the execution: it goes on where it stopped"
    ExecutionsTimedOut = "timed out. Redrive it: it goes on where it stopped"
    ExecutionsAborted  = "was aborted. Its targets stay pending until it is redriven or the resume window is over"
  }
}

resource "aws_cloudwatch_metric_alarm" "executions" {
  for_each = var.alarms ? local.alarms : {}

  alarm_name          = "${var.name}-${each.key}"
  alarm_description   = "An execution of ${var.name} ${each.value}."
  namespace           = "AWS/States"
  metric_name         = each.key
  dimensions          = { StateMachineArn = aws_sfn_state_machine.this.arn }
  statistic           = "Sum"
  period              = 300
  evaluation_periods  = 1
  threshold           = 1
  comparison_operator = "GreaterThanOrEqualToThreshold"
  # No executions, no data: that is not a failure.
  treat_missing_data = "notBreaching"
  alarm_actions      = var.alarm_topic_arns
  ok_actions         = var.alarm_topic_arns
  tags               = var.tags
}
