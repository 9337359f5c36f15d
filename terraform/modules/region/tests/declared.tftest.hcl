# What Terraform grants a function is what its permissions.json declares, both ways.
#
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

# The modules within have tests of their own. The policies of the functions are made in this one.
override_module {
  target  = module.function
  outputs = { arn = "arn:aws:lambda:us-east-1:111122223333:function:overridden", name = "overridden", role_arn = "arn:aws:iam::111122223333:role/overridden", log_group_name = "overridden" }
}

override_module {
  target  = module.machine
  outputs = { arn = "arn:aws:states:us-east-1:111122223333:stateMachine:overridden", name = "overridden", role_arn = "arn:aws:iam::111122223333:role/overridden", log_group_name = "overridden", alarm_arns = [] }
}

variables {
  name_prefix          = "blockferry"
  artifacts_dir        = "../../tests/artifacts"
  definitions_dir      = "../../../statemachines"
  restore_bucket_names = ["raw"]
  trusted_role_arns    = ["arn:aws:iam::123456789012:role/blockferry-access"]
}

run "every_function_is_granted_what_it_declares_and_nothing_else" {
  command = plan

  assert {
    condition = alltrue([
      for name in keys(local.functions) : length(setsubtract(
        keys(jsondecode(file("../../../functions/${name}/permissions.json")).actions),
        flatten([for statement in jsondecode(data.aws_iam_policy_document.function[name].json).Statement : statement.Action]),
      )) == 0
    ])
    error_message = "Declared, but not granted: ${jsonencode({
      for name in keys(local.functions) : name => setsubtract(
        keys(jsondecode(file("../../../functions/${name}/permissions.json")).actions),
        flatten([for statement in jsondecode(data.aws_iam_policy_document.function[name].json).Statement : statement.Action]),
      )
    })}"
  }

  assert {
    condition = alltrue([
      for name in keys(local.functions) : length(setsubtract(
        flatten([for statement in jsondecode(data.aws_iam_policy_document.function[name].json).Statement : statement.Action]),
        keys(jsondecode(file("../../../functions/${name}/permissions.json")).actions),
      )) == 0
    ])
    error_message = "Granted, but not declared: ${jsonencode({
      for name in keys(local.functions) : name => setsubtract(
        flatten([for statement in jsondecode(data.aws_iam_policy_document.function[name].json).Statement : statement.Action]),
        keys(jsondecode(file("../../../functions/${name}/permissions.json")).actions),
      )
    })}"
  }

  assert {
    condition     = toset([for path in fileset("../../../functions", "*/permissions.json") : dirname(path)]) == toset(keys(local.functions))
    error_message = "functions/ and the functions of this module must be the same."
  }
}
