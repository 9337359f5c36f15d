# The real provider renders the policies, so this reads what AWS would get. It makes no call: nothing is
# applied, and what it would ask AWS is given here.

provider "aws" {
  region                      = "us-east-1"
  access_key                  = "111122223333"
  secret_key                  = "offline"
  skip_credentials_validation = true
  skip_metadata_api_check     = true
  skip_requesting_account_id  = true
}

override_data {
  target = data.aws_caller_identity.current
  values = { account_id = "111122223333" }
}

variables {
  name            = "blockferry-check-targets"
  role_name       = "blockferry-check-targets-us-east-1"
  description     = "Checks targets"
  source_path     = "../../tests/artifacts/functions/check_targets.zip"
  runtime         = "python3.13"
  architecture    = "arm64"
  memory_mb       = 512
  timeout_seconds = 60
  policy_json     = "{\"Version\":\"2012-10-17\",\"Statement\":[{\"Sid\":\"Describe\",\"Effect\":\"Allow\",\"Action\":\"ec2:DescribeSnapshots\",\"Resource\":\"*\"}]}"
}

run "a_function_gets_its_calls_own_logs_and_traces_and_only_lambda_assumes_its_role" {
  command = plan

  assert {
    condition = toset(flatten([for statement in jsondecode(aws_iam_role_policy.this.policy).Statement : statement.Action])) == toset([
      "ec2:DescribeSnapshots", "logs:CreateLogStream", "logs:PutLogEvents", "xray:PutTelemetryRecords", "xray:PutTraceSegments",
    ])
    error_message = "A function gets its own calls, its logs and its traces, nothing else."
  }

  assert {
    condition = one([
      for statement in jsondecode(aws_iam_role_policy.this.policy).Statement : statement.Resource if statement.Sid == "WriteOwnLogs"
    ]) == "arn:aws:logs:us-east-1:111122223333:log-group:/aws/lambda/blockferry-check-targets:*"
    error_message = "A function writes to its own log group only."
  }

  assert {
    condition = jsondecode(aws_iam_role.this.assume_role_policy).Statement == [{
      Action    = "sts:AssumeRole"
      Condition = { StringEquals = { "aws:SourceAccount" = "111122223333" } }
      Effect    = "Allow"
      Principal = { Service = "lambda.amazonaws.com" }
      Sid       = "LambdaOfThisAccount"
    }]
    error_message = "The trust policy must name Lambda and this account."
  }
}

run "a_function_with_a_key_may_read_its_environment_and_one_without_tracing_writes_no_traces" {
  command = plan

  variables {
    kms_key_arn = "arn:aws:kms:us-east-1:111122223333:key/11111111-2222-3333-4444-555555555555"
    tracing     = false
  }

  assert {
    condition     = !strcontains(aws_iam_role_policy.this.policy, "xray:")
    error_message = "Without tracing there is nothing to permit."
  }

  assert {
    condition = one([
      for statement in jsondecode(aws_iam_role_policy.this.policy).Statement :
      statement.Action == "kms:Decrypt" && statement.Resource == var.kms_key_arn
      && statement.Condition == { StringEquals = { "kms:ViaService" = "lambda.us-east-1.amazonaws.com" } }
      if statement.Sid == "ReadOwnEnvironment"
    ])
    error_message = "The key may be used through Lambda, to decrypt."
  }
}
