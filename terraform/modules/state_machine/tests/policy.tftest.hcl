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

# The provider asks AWS to check a definition at plan time.
override_resource {
  target = aws_sfn_state_machine.this
}

variables {
  name            = "blockferry-copy"
  role_name       = "blockferry-copy-machine-us-east-1"
  definition_file = "tests/definition.asl.json"
  function_arns   = { check_targets = "arn:aws:lambda:us-east-1:111122223333:function:blockferry-check-targets" }
  work            = { bucket_arn = "arn:aws:s3:::blockferry-work-111122223333-us-east-1", prefix = "jobs/copy/" }
}

run "the_role_reaches_its_own_machine_functions_and_job_records_only" {
  command = plan

  assert {
    condition = toset(one([
      for statement in jsondecode(aws_iam_role_policy.this.policy).Statement : statement.Resource if statement.Action == "lambda:InvokeFunction"
    ])) == toset([var.function_arns.check_targets, "${var.function_arns.check_targets}:*"])
    error_message = "The role must invoke just the given functions."
  }

  assert {
    condition = one([
      for statement in jsondecode(aws_iam_role_policy.this.policy).Statement : statement.Resource if statement.Action == "states:StartExecution"
    ]) == "arn:aws:states:us-east-1:111122223333:stateMachine:blockferry-copy"
    error_message = "The role must start executions of its own machine only."
  }

  assert {
    condition = toset(one([
      for statement in jsondecode(aws_iam_role_policy.this.policy).Statement : statement.Resource if try(contains(statement.Action, "states:RedriveExecution"), false)
      ])) == toset([
      "arn:aws:states:us-east-1:111122223333:execution:blockferry-copy:*",
      "arn:aws:states:us-east-1:111122223333:execution:blockferry-copy/*",
    ])
    error_message = "The role must follow executions of its own machine only."
  }

  assert {
    condition = one([
      for statement in jsondecode(aws_iam_role_policy.this.policy).Statement : statement.Resource if try(contains(statement.Action, "s3:PutObject"), false)
    ]) == "arn:aws:s3:::blockferry-work-111122223333-us-east-1/jobs/copy/*/results/*"
    error_message = "The role must write results of its own jobs only."
  }

  assert {
    condition = alltrue(flatten([
      for statement in jsondecode(aws_iam_role_policy.this.policy).Statement : [
        for action in flatten([statement.Action]) : startswith(action, "logs:") || startswith(action, "xray:")
      ] if contains(flatten([statement.Resource]), "*")
    ]))
    error_message = "Only log deliveries and traces have no resource level."
  }

  assert {
    condition = jsondecode(aws_iam_role.this.assume_role_policy).Statement[0].Condition == {
      ArnLike = { "aws:SourceArn" = [
        "arn:aws:states:us-east-1:111122223333:stateMachine:blockferry-copy",
        "arn:aws:states:us-east-1:111122223333:stateMachine:blockferry-copy/*",
      ] }
      StringEquals = { "aws:SourceAccount" = "111122223333" }
    }
    error_message = "The trust policy must name this account and this machine."
  }
}
