mock_provider "aws" {
  source = "../../tests/mocks"
}

variables {
  name            = "blockferry-move-blocks"
  role_name       = "blockferry-move-blocks-us-east-1"
  description     = "Moves blocks"
  source_path     = "../../tests/artifacts/functions/move_blocks.zip"
  runtime         = "python3.13"
  architecture    = "arm64"
  memory_mb       = 1769
  timeout_seconds = 900
  policy_json     = "{\"Version\":\"2012-10-17\",\"Statement\":[]}"
}

run "a_function_is_traced_and_its_logs_end_by_default" {
  assert {
    condition     = aws_lambda_function.this.tracing_config[0].mode == "Active"
    error_message = "The function must be traced."
  }

  assert {
    condition     = aws_cloudwatch_log_group.this.name == "/aws/lambda/blockferry-move-blocks" && aws_cloudwatch_log_group.this.retention_in_days == 365
    error_message = "The log group must be the function's own and end after a year."
  }

  assert {
    condition     = aws_lambda_function.this.kms_key_arn == null && aws_cloudwatch_log_group.this.kms_key_id == null
    error_message = "Without a key, AWS's own encrypts."
  }

  assert {
    condition     = aws_lambda_function.this.handler == "handler.handler" && aws_lambda_function.this.timeout == 900 && aws_lambda_function.this.memory_size == 1769
    error_message = "Handler, timeout and memory must be as asked."
  }

  assert {
    condition     = aws_lambda_function.this.source_code_hash == filebase64sha256("../../tests/artifacts/functions/move_blocks.zip")
    error_message = "New code must be noticed by its hash."
  }
}

run "key_boundary_and_tags_are_used_and_tracing_can_be_off" {
  variables {
    kms_key_arn          = "arn:aws:kms:us-east-1:111122223333:key/11111111-2222-3333-4444-555555555555"
    permissions_boundary = "arn:aws:iam::111122223333:policy/boundary"
    tags                 = { Team = "storage" }
    tracing              = false
  }

  assert {
    condition     = aws_lambda_function.this.kms_key_arn == var.kms_key_arn && aws_cloudwatch_log_group.this.kms_key_id == var.kms_key_arn
    error_message = "The key must encrypt logs and environment."
  }

  assert {
    condition     = aws_iam_role.this.permissions_boundary == var.permissions_boundary
    error_message = "The role must have the boundary."
  }

  assert {
    condition     = alltrue([for tags in [aws_lambda_function.this.tags, aws_iam_role.this.tags, aws_cloudwatch_log_group.this.tags] : tags["Team"] == "storage"])
    error_message = "Every resource must carry the tags."
  }

  assert {
    condition     = aws_lambda_function.this.tracing_config[0].mode == "PassThrough"
    error_message = "The function must not sample traces."
  }
}

run "missing_code_says_to_build" {
  command = plan

  variables {
    source_path = "../../tests/artifacts/functions/absent.zip"
  }

  expect_failures = [aws_lambda_function.this]
}

run "wrong_values_are_refused_by_name" {
  command = plan

  variables {
    name                  = "with space"
    role_name             = "with space"
    runtime               = "python3.10"
    architecture          = "amd64"
    memory_mb             = 64
    timeout_seconds       = 901
    layer_arns            = ["1", "2", "3", "4", "5", "6"]
    log_retention_in_days = 0
    policy_json           = "allow all"
  }

  expect_failures = [
    var.name,
    var.role_name,
    var.runtime,
    var.architecture,
    var.memory_mb,
    var.timeout_seconds,
    var.layer_arns,
    var.log_retention_in_days,
    var.policy_json,
  ]
}
