mock_provider "aws" {
  source = "../../tests/mocks"
}

variables {
  name            = "blockferry-copy"
  role_name       = "blockferry-copy-machine-us-east-1"
  definition_file = "tests/definition.asl.json"
  function_arns   = { check_targets = "arn:aws:lambda:us-east-1:111122223333:function:blockferry-check-targets" }
  work            = { bucket_arn = "arn:aws:s3:::blockferry-work-111122223333-us-east-1", prefix = "jobs/copy/" }
}

run "a_machine_is_traced_logged_and_watched_by_default" {
  assert {
    condition     = aws_sfn_state_machine.this.type == "STANDARD" && aws_sfn_state_machine.this.tracing_configuration[0].enabled
    error_message = "The machine must be a traced standard one: express ones cannot be redriven."
  }

  assert {
    condition     = aws_sfn_state_machine.this.logging_configuration[0].level == "ERROR" && endswith(aws_sfn_state_machine.this.logging_configuration[0].log_destination, ":*")
    error_message = "The machine must log errors, to a destination that Step Functions accepts."
  }

  assert {
    condition     = aws_cloudwatch_log_group.this.name == "/aws/vendedlogs/states/blockferry-copy" && aws_cloudwatch_log_group.this.retention_in_days == 365
    error_message = "The log group must be a vended one and end after a year."
  }

  assert {
    condition     = toset(keys(aws_cloudwatch_metric_alarm.executions)) == toset(["ExecutionsAborted", "ExecutionsFailed", "ExecutionsTimedOut"])
    error_message = "Every way to fail must have an alarm."
  }

  assert {
    condition     = length(aws_sfn_state_machine.this.encryption_configuration) == 0
    error_message = "Without a key, AWS's own encrypts."
  }

  assert {
    condition     = jsondecode(aws_sfn_state_machine.this.definition).States["Check"].Arguments.FunctionName == var.function_arns.check_targets
    error_message = "The placeholder must become the function's ARN."
  }
}

run "key_and_topics_are_used" {
  variables {
    alarm_topic_arns = ["arn:aws:sns:us-east-1:111122223333:operations"]
    kms_key_arn      = "arn:aws:kms:us-east-1:111122223333:key/11111111-2222-3333-4444-555555555555"
  }

  assert {
    condition     = alltrue([for alarm in aws_cloudwatch_metric_alarm.executions : alarm.alarm_actions == toset(var.alarm_topic_arns)])
    error_message = "Every alarm must notify the topic."
  }

  assert {
    condition     = aws_sfn_state_machine.this.encryption_configuration[0].kms_key_id == var.kms_key_arn && aws_cloudwatch_log_group.this.kms_key_id == var.kms_key_arn
    error_message = "The key must encrypt definition, history and logs."
  }
}

run "everything_optional_can_be_off" {
  variables {
    alarms    = false
    tracing   = false
    log_level = "OFF"
  }

  assert {
    condition     = length(aws_cloudwatch_metric_alarm.executions) == 0 && !aws_sfn_state_machine.this.tracing_configuration[0].enabled && aws_sfn_state_machine.this.logging_configuration[0].level == "OFF"
    error_message = "There must be no alarms, traces and logs."
  }
}

run "wrong_values_are_refused_by_name" {
  command = plan

  variables {
    name                  = "with space"
    role_name             = "with space"
    definition_file       = "tests/absent.asl.json"
    log_level             = "DEBUG"
    log_retention_in_days = 0
  }

  expect_failures = [var.name, var.role_name, var.definition_file, var.log_level, var.log_retention_in_days]
}

run "integrations_are_those_of_the_partition" {
  override_data {
    target = data.aws_partition.current
    values = { partition = "aws-cn" }
  }

  assert {
    condition     = jsondecode(aws_sfn_state_machine.this.definition).States["Check"].Resource == "arn:aws-cn:states:::lambda:invoke"
    error_message = "A machine in China must use the integrations of its partition."
  }
}
