locals {
  function_names = [for name in sort(keys(local.functions)) : module.function[name].name]

  dashboard_graphs = [
    {
      title = "Jobs"
      stat  = "Sum"
      metrics = flatten([
        for machine in values(module.machine) : [
          for metric in ["ExecutionsStarted", "ExecutionsSucceeded", "ExecutionsFailed", "ExecutionsTimedOut", "ExecutionsAborted"] :
          { line = ["AWS/States", metric, "StateMachineArn", machine.arn, { label = "${machine.name}: ${metric}" }] }
        ]
      ])
    },
    {
      title = "Duration of jobs (ms, 90 % are faster)"
      stat  = "p90"
      metrics = [
        for machine in values(module.machine) :
        { line = ["AWS/States", "ExecutionTime", "StateMachineArn", machine.arn, { label = machine.name }] }
      ]
    },
    {
      title   = "Functions at work"
      stat    = "Maximum"
      metrics = [for name in local.function_names : { line = ["AWS/Lambda", "ConcurrentExecutions", "FunctionName", name, {}] }]
    },
    {
      title   = "Invocations"
      stat    = "Sum"
      metrics = [for name in local.function_names : { line = ["AWS/Lambda", "Invocations", "FunctionName", name, {}] }]
    },
    {
      title   = "Errors of functions (jobs retry them)"
      stat    = "Sum"
      metrics = [for name in local.function_names : { line = ["AWS/Lambda", "Errors", "FunctionName", name, {}] }]
    },
    {
      title   = "Throttled invocations"
      stat    = "Sum"
      metrics = [for name in local.function_names : { line = ["AWS/Lambda", "Throttles", "FunctionName", name, {}] }]
    },
    {
      title   = "Duration of functions (ms, longest)"
      stat    = "Maximum"
      metrics = [for name in local.function_names : { line = ["AWS/Lambda", "Duration", "FunctionName", name, {}] }]
    },
  ]

  dashboard_alarm_arns = concat(
    flatten([for machine in values(module.machine) : machine.alarm_arns]),
    [for alarm in aws_cloudwatch_metric_alarm.sweep : alarm.arn],
    [for alarm in aws_cloudwatch_metric_alarm.throttled : alarm.arn],
  )

  dashboard_alarm_widgets = var.observability.alarms ? [{
    type       = "alarm"
    width      = 24
    height     = 3
    properties = { title = "Alarms", alarms = local.dashboard_alarm_arns }
  }] : []
}

resource "aws_cloudwatch_dashboard" "this" {
  count = var.observability.dashboard ? 1 : 0

  # Dashboards are global: two regions must not share a name.
  dashboard_name = "${var.name_prefix}-${local.region}"

  dashboard_body = jsonencode({
    # Widgets without a place are laid out in order, from left to right.
    widgets = concat(
      local.dashboard_alarm_widgets,
      [
        for graph in local.dashboard_graphs : {
          type   = "metric"
          width  = 12
          height = 6
          properties = {
            title   = graph.title
            region  = local.region
            view    = "timeSeries"
            period  = 300
            stat    = graph.stat
            metrics = [for metric in graph.metrics : metric.line]
          }
        }
      ],
    )
  })
}
