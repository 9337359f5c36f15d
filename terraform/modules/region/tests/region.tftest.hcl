mock_provider "aws" {
  source = "../../tests/mocks"
}

variables {
  name_prefix     = "blockferry"
  artifacts_dir   = "../../tests/artifacts"
  definitions_dir = "../../../statemachines"
}

run "a_region_has_everything_by_default" {
  assert {
    condition     = aws_s3_bucket.work.bucket == "blockferry-work-111122223333-us-east-1" && aws_s3_bucket.archive.bucket == "blockferry-archive-111122223333-us-east-1"
    error_message = "Buckets must be named after prefix, account and region."
  }

  assert {
    condition     = toset(keys(output.functions)) == toset(["check_targets", "complete_transfer", "conclude_verification", "copy_backups", "delete_expired", "inspect_snapshots", "mark_expired", "move_blocks", "plan_backup", "plan_expiry", "plan_replication", "plan_transfer", "plan_verification", "sweep_jobs", "take_backups", "unpack_image", "verify_blocks", "write_receipt", "write_report"])
    error_message = "All functions must be there."
  }

  assert {
    condition     = { for name, function in local.functions : name => function.timeout_seconds } == { check_targets = 300, complete_transfer = 900, conclude_verification = 900, copy_backups = 900, delete_expired = 900, inspect_snapshots = 900, mark_expired = 900, move_blocks = 900, plan_backup = 900, plan_expiry = 900, plan_replication = 900, plan_transfer = 900, plan_verification = 300, sweep_jobs = 300, take_backups = 900, unpack_image = 900, verify_blocks = 900, write_receipt = 300, write_report = 300 }
    error_message = "Every function must have its timeout."
  }

  assert {
    condition     = { for name, function in module.function : name => function.name } == { for name in keys(local.functions) : name => "blockferry-${replace(name, "_", "-")}" }
    error_message = "Functions must be named after the prefix, with hyphens."
  }

  assert {
    condition     = aws_scheduler_schedule.sweep.schedule_expression == "rate(1 hour)" && aws_scheduler_schedule.sweep.target[0].arn == output.functions["sweep_jobs"]
    error_message = "The sweeper must run every hour."
  }

  assert {
    condition     = alltrue([for alarm in aws_cloudwatch_metric_alarm.throttled : strcontains(alarm.alarm_description, alarm.dimensions["quota"])]) && length(aws_cloudwatch_metric_alarm.throttled) == 4
    error_message = "Each of the four throttle alarms must name its quota."
  }

  assert {
    condition     = toset(keys(aws_cloudwatch_metric_alarm.sweep)) == toset(["failed", "missed", "refused"]) && output.dashboard == "blockferry-us-east-1"
    error_message = "Alarms and dashboard must be on."
  }

  assert {
    condition     = toset(keys(output.state_machines)) == toset(["archive", "backup", "copy", "expire", "fanout", "inspect", "replicate", "restore", "sync", "verify"])
    error_message = "Every operation must have its machine."
  }

  assert {
    condition = output.start_commands == {
      archive   = "blockferry archive SNAPSHOT --to s3://BUCKET/PREFIX --wait --region us-east-1"
      backup    = "blockferry backup --dry-run --region us-east-1"
      copy      = "blockferry copy SNAPSHOT --to REGION --wait --region us-east-1"
      expire    = "blockferry expire --dry-run --region us-east-1"
      fanout    = "blockferry fanout s3://BUCKET/KEY --to REGION --wait --region us-east-1"
      inspect   = "blockferry inspect SNAPSHOT --region us-east-1"
      replicate = "blockferry replicate --dry-run --region us-east-1"
      restore   = "blockferry restore MANIFEST --to REGION --wait --region us-east-1"
      sync      = "blockferry sync SNAPSHOT --follow --to REGION --wait --region us-east-1"
      verify    = "blockferry verify MANIFEST --wait --region us-east-1"
    }
    error_message = "A start command must run in any folder and say what is to be filled in."
  }

  assert {
    condition     = aws_s3_bucket_versioning.archive.versioning_configuration[0].status == "Enabled"
    error_message = "The archive bucket must be versioned."
  }

  assert {
    condition     = alltrue([for rule in aws_s3_bucket_lifecycle_configuration.archive.rule : length(rule.expiration) == 0 && length(rule.noncurrent_version_expiration) == 0 && length(rule.transition) == 0])
    error_message = "No rule may touch archives."
  }

  assert {
    condition = alltrue([
      for configuration in [aws_s3_bucket_lifecycle_configuration.archive, aws_s3_bucket_lifecycle_configuration.work] :
      one(flatten([for rule in configuration.rule : rule.abort_incomplete_multipart_upload[*].days_after_initiation])) == 7
    ])
    error_message = "Incomplete uploads must end after seven days in both buckets."
  }

  assert {
    condition = one([
      for rule in aws_s3_bucket_lifecycle_configuration.work.rule : rule.expiration[0].days if length(rule.expiration) > 0 && try(rule.filter[0].prefix, "") == "jobs/"
    ]) == 35
    error_message = "Job records must expire after 35 days."
  }

  assert {
    condition = {
      for rule in aws_s3_bucket_lifecycle_configuration.work.rule : rule.filter[0].prefix => rule.expiration[0].days if length(rule.expiration) > 0
    } == { "jobs/" = 35, "running/leases/" = 1, "running/speeds/" = 35 }
    error_message = "Leases of workers must expire after a day, speeds with the records of their jobs."
  }

  assert {
    condition = alltrue([
      for block in aws_s3_bucket_public_access_block.this :
      block.block_public_acls && block.block_public_policy && block.ignore_public_acls && block.restrict_public_buckets
    ]) && length(aws_s3_bucket_public_access_block.this) == 2
    error_message = "Neither bucket may become public."
  }

  assert {
    condition     = alltrue([for encryption in aws_s3_bucket_server_side_encryption_configuration.this : one(one(encryption.rule).apply_server_side_encryption_by_default).sse_algorithm == "AES256"])
    error_message = "Without a key, S3's own encrypts."
  }

  assert {
    condition     = !aws_s3_bucket.work.force_destroy && !aws_s3_bucket.archive.force_destroy
    error_message = "Buckets with objects must not be destroyed by default."
  }
}

run "nothing_looks_after_backups_by_itself_unless_it_is_said" {
  assert {
    condition     = length(aws_scheduler_schedule.backups) == 0 && length(aws_sqs_queue.missed_backups) == 0 && length(aws_cloudwatch_metric_alarm.backups) == 0 && length(aws_iam_role.backup_schedules) == 0 && length(aws_cloudwatch_event_rule.completed) == 0
    error_message = "Schedules of backups must be off by default, with all that is for them only."
  }
}

run "backups_run_at_each_time_of_their_weekdays_and_are_expired_every_day" {
  variables {
    backups = { backup = true, replicate = true, expire = true, times = ["01:05", "13:00"], weekdays = ["MON", "FRI"], time_zone = "Europe/Berlin", retention = "7d 4w" }
  }

  assert {
    condition = { for name, schedule in aws_scheduler_schedule.backups : name => [schedule.schedule_expression, schedule.schedule_expression_timezone] } == {
      backup-0105 = ["cron(5 1 ? * MON,FRI *)", "Europe/Berlin"]
      backup-1300 = ["cron(0 13 ? * MON,FRI *)", "Europe/Berlin"]
      expire      = ["cron(0 5 * * ? *)", "Europe/Berlin"]
      replicate   = ["rate(15 minutes)", "Europe/Berlin"]
    }
    error_message = "Each time of day must have its schedule, in the zone of the deployment."
  }

  assert {
    condition = alltrue([
      for name, schedule in aws_scheduler_schedule.backups :
      schedule.target[0].arn == output.state_machines[startswith(name, "backup-") ? "backup" : name] && one(schedule.target[0].dead_letter_config).arn == "arn:aws:sqs:us-east-1:111122223333:${aws_sqs_queue.missed_backups[0].name}"
    ])
    error_message = "Each schedule must start its machine, and tell of runs that it could not start."
  }

  assert {
    condition     = jsondecode(local.functions.take_backups.timeout_seconds) == 900 && jsondecode(local.backup_settings.BLOCKFERRY_BACKUPS).retention == "7d 4w"
    error_message = "Functions must be told what the deployment says of backups."
  }

  assert {
    condition     = aws_cloudwatch_event_target.replicate[0].arn == output.state_machines["replicate"] && jsondecode(aws_cloudwatch_event_rule.completed[0].event_pattern).detail-type == ["EBS Snapshot Notification", "EBS Multi-Volume Snapshots Completion Status"]
    error_message = "Completed snapshots must wake replicate."
  }

  assert {
    condition     = toset(keys(aws_cloudwatch_metric_alarm.backups)) == toset(["backup-silent", "backups-missed", "expire-silent", "replicate-silent"])
    error_message = "Runs that do not come must be told of."
  }
}

run "settings_of_backups_that_mean_nothing_are_refused" {
  command = plan

  variables {
    backups = { times = ["1:00"], weekdays = ["Monday"], time_zone = "CET+1", retention = "a week", keep_newest = -1, tag_names = { deletion = "x" }, destinations = { "Far Away" = { region = "eu-west-1" } } }
  }

  expect_failures = [var.backups]
}

run "key_and_tags_are_used_and_everything_optional_can_be_off" {
  variables {
    storage_kms_key_arn = "arn:aws:kms:us-east-1:111122223333:key/11111111-2222-3333-4444-555555555555"
    observability       = { alarms = false, dashboard = false, tracing = false, state_machine_log_level = "OFF" }
    tags                = { Team = "storage" }
  }

  assert {
    condition     = alltrue([for encryption in aws_s3_bucket_server_side_encryption_configuration.this : one(one(encryption.rule).apply_server_side_encryption_by_default).kms_master_key_id == var.storage_kms_key_arn])
    error_message = "The key must encrypt both buckets."
  }

  assert {
    condition     = length(aws_cloudwatch_metric_alarm.sweep) == 0 && length(aws_cloudwatch_metric_alarm.throttled) == 0 && length(aws_cloudwatch_dashboard.this) == 0 && output.dashboard == null
    error_message = "There must be no alarm and no dashboard."
  }

  assert {
    condition     = aws_s3_bucket.archive.tags == tomap({ Team = "storage", Project = "blockferry", ManagedBy = "terraform" })
    error_message = "Resources must carry the tags and the fixed ones."
  }
}

run "a_missing_layer_says_to_build" {
  command = plan

  variables {
    lambda = { architecture = "x86_64" }
  }

  expect_failures = [aws_lambda_layer_version.core]
}

run "a_sweeper_that_never_ran_rings_when_it_is_refused_and_one_that_stopped_when_it_is_silent" {
  variables {
    alarm_topic_arns = ["arn:aws:sns:us-east-1:111122223333:operations"]
  }

  assert {
    condition     = alltrue([for alarm in aws_cloudwatch_metric_alarm.sweep : alarm.treat_missing_data != "breaching"])
    error_message = "A deployment in which nothing has run yet must raise no alarm."
  }

  assert {
    condition     = aws_cloudwatch_metric_alarm.sweep["missed"].treat_missing_data == "missing" && aws_cloudwatch_metric_alarm.sweep["missed"].insufficient_data_actions == toset(var.alarm_topic_arns)
    error_message = "A sweeper that falls silent must be told of."
  }

  assert {
    condition = alltrue([
      aws_cloudwatch_metric_alarm.sweep["refused"].namespace == "AWS/Scheduler",
      aws_cloudwatch_metric_alarm.sweep["refused"].metric_name == "InvocationDroppedCount",
      aws_cloudwatch_metric_alarm.sweep["refused"].dimensions == tomap({ ScheduleGroup = aws_scheduler_schedule.sweep.group_name }),
      aws_cloudwatch_metric_alarm.sweep["refused"].alarm_actions == toset(var.alarm_topic_arns),
    ])
    error_message = "A schedule that cannot start the sweeper must be told of."
  }

  # The schedule gives a run up within the period, so that the alarm comes in the first hours.
  assert {
    condition     = aws_scheduler_schedule.sweep.target[0].retry_policy[0].maximum_event_age_in_seconds <= aws_cloudwatch_metric_alarm.sweep["refused"].period
    error_message = "A run that cannot be started must be given up before the next one is due."
  }
}

run "the_default_windows_fit_together" {
  command = plan

  assert {
    condition     = local.windows == { run = 168, wait = 24, pending = 72, sweep = 1, resume = 47, keep = 840 }
    error_message = "The windows must be those of the machines, of EBS and of the variables."
  }
}

run "a_resume_window_that_outlasts_the_targets_is_refused" {
  command = plan

  variables {
    resume_window_hours = 48
  }

  expect_failures = [terraform_data.windows]
}

run "records_that_expire_before_the_last_sweep_of_a_job_are_refused" {
  command = plan

  variables {
    job_retention_in_days = 10
  }

  expect_failures = [terraform_data.windows]
}

run "the_longest_window_and_the_shortest_retention_that_fit_are_taken" {
  command = plan

  variables {
    resume_window_hours   = 47
    job_retention_in_days = 11
  }

  assert {
    condition     = local.pending_hours == local.windows.pending && local.record_hours <= local.windows.keep
    error_message = "What fits must be planned."
  }
}

run "wrong_values_are_refused_by_name" {
  command = plan

  variables {
    lambda                = { runtime = "nodejs22.x", architecture = "amd64", log_level = "LOUD" }
    observability         = { state_machine_log_level = "DEBUG" }
    storage_kms_key_arn   = "alias/work"
    snapshot_kms_key_arns = ["alias/aws/ebs"]
  }

  expect_failures = [var.lambda, var.observability, var.storage_kms_key_arn, var.snapshot_kms_key_arns]
}
