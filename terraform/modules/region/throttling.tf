# Requests that EBS refused because of a quota. Workers keep to their share of the per-snapshot quotas, so an alarm
# means that something else uses the same quota, or that the account's is too low.

locals {
  throttle_alarms = {
    get-account = {
      quota       = "L-C125AE42"
      description = "GetSnapshotBlock requests per account are throttled; raise service quota L-C125AE42."
    }
    get-snapshot = {
      quota       = "L-028ACFB9"
      description = "GetSnapshotBlock requests per snapshot are throttled (quota L-028ACFB9, not adjustable); something else reads the same snapshot."
    }
    put-account = {
      quota       = "L-AFAE1BE8"
      description = "PutSnapshotBlock requests per account are throttled; raise service quota L-AFAE1BE8."
    }
    put-snapshot = {
      quota       = "L-1774F84A"
      description = "PutSnapshotBlock requests per snapshot are throttled (quota L-1774F84A, not adjustable); something else writes the same snapshot."
    }
  }
}

resource "aws_cloudwatch_metric_alarm" "throttled" {
  for_each = var.observability.alarms ? local.throttle_alarms : {}

  alarm_name          = "${var.name_prefix}-throttled-${each.key}"
  alarm_description   = each.value.description
  namespace           = "Blockferry"
  metric_name         = "ThrottledRequests"
  dimensions          = { quota = each.value.quota }
  statistic           = "Sum"
  period              = 300
  evaluation_periods  = 3
  threshold           = 100
  comparison_operator = "GreaterThanOrEqualToThreshold"
  treat_missing_data  = "notBreaching"
  alarm_actions       = var.alarm_topic_arns
  ok_actions          = var.alarm_topic_arns
  tags                = local.tags
}
