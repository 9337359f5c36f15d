# How long things last that wait for each other: a job, the places it waits for, its pending targets, its records, and the
# sweeper. Each alone is a matter of taste; together they must fit, which is checked here and nowhere else.

locals {
  windows = {
    # The longest a machine may run (its TimeoutSeconds).
    run = max([
      for operation in keys(local.machine_functions) :
      ceil(jsondecode(file("${var.definitions_dir}/${operation}.asl.json")).TimeoutSeconds / 3600)
    ]...)

    # A step waits for a free place for about a day before its job fails (docs/decisions/0018), and moves nothing meanwhile.
    wait = 24

    # StartSnapshot's longest Timeout: EBS cancels a pending snapshot 4,320 minutes after its last block.
    pending = 72

    # The sweeper comes every hour.
    sweep = 1

    resume = var.resume_window_hours
    keep   = var.job_retention_in_days * 24
  }

  # From the last block on: the wait, the window, and the sweep that deletes what is pending.
  pending_hours = local.windows.wait + local.windows.resume + local.windows.sweep

  # From the first object of a job on: its run, and then the window or, of what EBS was asked to seal, EBS's own time; the
  # sweep after that needs the record.
  record_hours = local.windows.run + max(local.windows.resume, local.windows.pending) + local.windows.sweep
}

resource "terraform_data" "windows" {
  input = local.windows

  lifecycle {
    precondition {
      condition     = local.pending_hours <= local.windows.pending
      error_message = "The resume window (resume_window_hours) may be ${local.windows.pending - local.windows.wait - local.windows.sweep} at most: EBS cancels a target ${local.windows.pending} hours after its last block, of which a step may wait ${local.windows.wait} for a free place before the job fails, and the sweeper comes within ${local.windows.sweep}. A job that is resumed later would find its targets gone."
    }

    precondition {
      condition     = local.record_hours <= local.windows.keep
      error_message = "Job records must be kept longer, job_retention_in_days must be ${ceil(local.record_hours / 24)} at least: a job may run for ${local.windows.run} hours, what it left may be pending for ${local.windows.pending} more, and the sweeper finds it by its record only."
    }
  }
}
