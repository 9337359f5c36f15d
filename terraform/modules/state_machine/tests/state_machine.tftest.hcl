mock_provider "aws" {
  source = "../../tests/mocks"
}

variables {
  name            = "blockferry-copy"
  role_name       = "blockferry-copy-machine-us-east-1"
  definition_file = "tests/definition.asl.json"
  function_arns   = { check_targets = "arn:aws:lambda:us-east-1:111122223333:function:blockferry-check-targets" }
  work            = { bucket_arn = "arn:aws:s3:::blockferry-work-111122223333-us-east-1" }
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
}

run "the_definition_names_the_functions" {
  assert {
    condition     = jsondecode(aws_sfn_state_machine.this.definition).States["Check"].Arguments.FunctionName == var.function_arns.check_targets
    error_message = "The placeholder must become the function's ARN."
  }
}

run "alarms_notify_their_topics" {
  variables {
    alarm_topic_arns = ["arn:aws:sns:us-east-1:111122223333:operations"]
  }

  assert {
    condition     = alltrue([for alarm in aws_cloudwatch_metric_alarm.executions : alarm.alarm_actions == toset(var.alarm_topic_arns)])
    error_message = "Every alarm must notify the topic."
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

run "a_key_encrypts_definition_history_and_logs" {
  variables {
    kms_key_arn = "arn:aws:kms:us-east-1:111122223333:key/11111111-2222-3333-4444-555555555555"
  }

  assert {
    condition     = aws_sfn_state_machine.this.encryption_configuration[0].kms_key_id == var.kms_key_arn && aws_cloudwatch_log_group.this.kms_key_id == var.kms_key_arn
    error_message = "The key must encrypt both."
  }
}

run "a_missing_definition_is_refused" {
  command = plan

  variables {
    definition_file = "tests/absent.asl.json"
  }

  expect_failures = [var.definition_file]
}

run "an_unknown_log_level_is_refused" {
  command = plan

  variables {
    log_level = "DEBUG"
  }

  expect_failures = [var.log_level]
}
