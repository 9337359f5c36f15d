mock_provider "aws" {
  source = "./tests/mocks"
}

mock_provider "aws" {
  alias  = "recovery"
  source = "./tests/mocks"

  override_data {
    target = module.recovery.data.aws_region.current
    values = { id = "eu-west-1" }
  }
}

variables {
  artifacts_dir = "tests/artifacts"
}

run "two_regions_have_the_same_by_default" {
  assert {
    condition     = output.regions == ["us-east-1", "eu-west-1"]
    error_message = "The regions must be home, then recovery."
  }

  assert {
    condition     = alltrue([for output in [output.state_machines, output.functions, output.buckets, output.dashboards, output.start_commands] : toset(keys(output)) == toset(["us-east-1", "eu-west-1"])])
    error_message = "Every output must be by region."
  }

  assert {
    condition     = output.dashboards == { us-east-1 = "blockferry-us-east-1", eu-west-1 = "blockferry-eu-west-1" }
    error_message = "Every region must have a dashboard of its own name."
  }

  assert {
    condition     = alltrue([for machines in values(output.state_machines) : keys(machines) == ["archive", "backup", "copy", "expire", "fanout", "inspect", "replicate", "restore", "sync", "verify"]])
    error_message = "Every region must have every machine."
  }
}

run "the_same_region_twice_is_refused" {
  command = plan

  variables {
    recovery_region = "us-east-1"
  }

  expect_failures = [var.recovery_region]
}

run "wrong_values_are_refused_by_name" {
  command = plan

  variables {
    name_prefix           = "block--ferry"
    lambda                = { runtme = "python3.12" }
    observability         = { log_level = "ERROR" }
    resume_window_hours   = 0
    job_retention_in_days = 10.5
    log_retention_in_days = 0
    kms_key_arns          = { home_region = "arn:aws:kms:us-east-1:111122223333:key/11111111-2222-3333-4444-555555555555" }
    permissions_boundary  = "boundary"
    alarm_topic_arns      = ["arn:aws:sns:ap-south-1:111122223333:operations"]
    trusted_role_arns     = ["arn:aws:iam::123456789012:role/*"]
    tags                  = { Project = "other" }
  }

  expect_failures = [
    var.name_prefix,
    var.lambda,
    var.observability,
    var.resume_window_hours,
    var.job_retention_in_days,
    var.log_retention_in_days,
    var.kms_key_arns,
    var.permissions_boundary,
    var.alarm_topic_arns,
    var.trusted_role_arns,
    var.tags,
  ]
}

run "a_home_key_of_another_region_is_refused" {
  command = plan

  variables {
    kms_key_arns = { home = "arn:aws:kms:eu-west-1:111122223333:key/11111111-2222-3333-4444-555555555555" }
  }

  expect_failures = [var.kms_key_arns]
}
