variable "name_prefix" {
  description = "First part of every name."
  type        = string
  default     = "blockferry"

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{0,22}[a-z0-9]$", var.name_prefix)) && !strcontains(var.name_prefix, "--")
    error_message = "The name prefix must have 2 to 24 lower-case letters, digits and single hyphens, begin with a letter and not end with a hyphen: it is part of bucket names."
  }
}

variable "home_region" {
  description = "Region where jobs are mostly started."
  type        = string
  default     = "us-east-1"

  validation {
    condition     = can(regex("^[a-z]{2}(-[a-z]+)+-[0-9]+$", var.home_region))
    error_message = "The home region must be the name of a region, for example us-east-1."
  }
}

variable "recovery_region" {
  description = "Region that has everything, too, so that jobs run when the home region is down."
  type        = string
  default     = "eu-west-1"

  validation {
    condition     = can(regex("^[a-z]{2}(-[a-z]+)+-[0-9]+$", var.recovery_region))
    error_message = "The recovery region must be the name of a region, for example eu-west-1."
  }

  validation {
    condition     = var.recovery_region != var.home_region
    error_message = "The recovery region must be another region than the home region."
  }
}

variable "artifacts_dir" {
  description = "Folder that scripts/build wrote, absolute or relative to this folder."
  type        = string
  default     = "../build"
}

variable "lambda" {
  description = <<-EOT
    How the functions run:
    - runtime: Lambda runtime. Run scripts/build for the same one. Default: python3.13.
    - architecture: arm64 or x86_64. Run scripts/build for the same one. Default: arm64.
    - log_level: lowest level that functions log: DEBUG, INFO, WARNING, ERROR or CRITICAL. Default: INFO.
  EOT
  # Terraform drops what an object type does not have, and a misspelt attribute would leave the default in force without
  # a word. So the names are checked here, types and values in modules/region.
  type     = any
  default  = {}
  nullable = false

  validation {
    condition     = length(setsubtract(keys(var.lambda), ["runtime", "architecture", "log_level"])) == 0
    error_message = "There is no ${join(" and no ", setsubtract(keys(var.lambda), ["runtime", "architecture", "log_level"]))} in lambda, only runtime, architecture and log_level."
  }
}

variable "observability" {
  description = <<-EOT
    What can be seen of the running system:
    - tracing: send X-Ray traces. Default: true.
    - alarms: raise alarms for failed jobs and a failing sweeper. Default: true.
    - dashboard: one CloudWatch dashboard per region. Default: true.
    - state_machine_log_level: ALL, ERROR, FATAL or OFF. Default: ERROR.
  EOT
  # As for lambda.
  type     = any
  default  = {}
  nullable = false

  validation {
    condition     = length(setsubtract(keys(var.observability), ["tracing", "alarms", "dashboard", "state_machine_log_level"])) == 0
    error_message = "There is no ${join(" and no ", setsubtract(keys(var.observability), ["tracing", "alarms", "dashboard", "state_machine_log_level"]))} in observability, only tracing, alarms, dashboard and state_machine_log_level."
  }
}

variable "resume_window_hours" {
  description = "Hours in which a failed job may be redriven, 1 to 47. After them its pending targets are deleted."
  type        = number
  default     = 47

  validation {
    condition     = var.resume_window_hours >= 1 && floor(var.resume_window_hours) == var.resume_window_hours
    error_message = "The resume window must be a whole number of hours, at least 1."
  }
}

variable "job_retention_in_days" {
  description = "Days that plans, digests and receipts of jobs stay in the work buckets."
  type        = number
  default     = 35

  validation {
    condition     = var.job_retention_in_days >= 1 && floor(var.job_retention_in_days) == var.job_retention_in_days
    error_message = "Job records must be kept for a whole number of days, at least 1."
  }
}

variable "log_retention_in_days" {
  description = "Days that logs are kept."
  type        = number
  default     = 365

  validation {
    # The values that CloudWatch Logs accepts, without 0, which means for ever.
    condition = contains(
      [1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545, 731, 1096, 1827, 2192, 2557, 2922, 3288, 3653],
      var.log_retention_in_days
    )
    error_message = "Logs are kept for one of the numbers of days that CloudWatch Logs accepts, for example 30, 90, 365 or 3653."
  }
}

variable "kms_key_arns" {
  description = <<-EOT
    Keys of your own:
    - home, recovery: key of the region's buckets, logs, environments and execution histories. Null: keys that
      AWS owns. The key policy must allow CloudWatch Logs (logs.<region>.amazonaws.com).
    - snapshots: keys of snapshots that functions may use through EBS, in any region and account. Null: every
      key of this account whose own policy allows it. Empty: none.
  EOT
  # As for lambda.
  type     = any
  default  = {}
  nullable = false

  validation {
    condition     = length(setsubtract(keys(var.kms_key_arns), ["home", "recovery", "snapshots"])) == 0
    error_message = "There is no ${join(" and no ", setsubtract(keys(var.kms_key_arns), ["home", "recovery", "snapshots"]))} in kms_key_arns, only home, recovery and snapshots."
  }

  validation {
    condition = alltrue([
      for region, arn in { (var.home_region) = try(var.kms_key_arns.home, null), (var.recovery_region) = try(var.kms_key_arns.recovery, null) } :
      arn == null || try(split(":", arn)[3] == region, false)
    ])
    error_message = "The keys named home and recovery must be in the home and in the recovery region."
  }
}

variable "archive_bucket_names" {
  description = "Buckets of this account in which archives may be written and read, beside the archive buckets of this deployment. Null: every bucket of this account."
  type        = list(string)
  default     = []

  validation {
    condition     = alltrue([for name in coalesce(var.archive_bucket_names, []) : can(regex("^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$", name))])
    error_message = "Every archive bucket must be the name of a bucket, without s3:// and without a key."
  }
}

variable "archive_kms_key_arns" {
  description = "Keys with which archives may be encrypted and read, through S3 only. Null: every key of this account. Empty: none."
  type        = list(string)
  default     = null

  validation {
    condition     = alltrue([for arn in coalesce(var.archive_kms_key_arns, []) : can(regex("^arn:[a-z-]+:kms:[a-z0-9-]+:[0-9]{12}:key/[a-zA-Z0-9-]+$", arn))])
    error_message = "Every key of archives must be the ARN of a KMS key, not of an alias: policies do not follow aliases."
  }
}

variable "image_bucket_names" {
  description = "Buckets of this account from which fanout may read disk images. Null: every bucket of this account. Empty: none."
  type        = list(string)
  default     = null

  validation {
    condition     = alltrue([for name in coalesce(var.image_bucket_names, []) : can(regex("^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$", name))])
    error_message = "Every image bucket must be the name of a bucket, without s3:// and without a key."
  }
}

variable "permissions_boundary" {
  description = "ARN of the permissions boundary of every role."
  type        = string
  default     = null

  validation {
    condition     = var.permissions_boundary == null || can(regex("^arn:[a-z-]+:iam::([0-9]{12}|aws):policy/.+$", var.permissions_boundary))
    error_message = "The permissions boundary must be the ARN of an IAM policy."
  }
}

variable "alarm_topic_arns" {
  description = "SNS topics that alarms notify. Each serves the alarms of its own region."
  type        = list(string)
  default     = []

  validation {
    condition     = alltrue([for arn in var.alarm_topic_arns : can(regex("^arn:[a-z-]+:sns:[a-z0-9-]+:[0-9]{12}:[a-zA-Z0-9_-]+$", arn))])
    error_message = "Every alarm topic must be the ARN of an SNS topic."
  }

  validation {
    # An alarm notifies topics of its own region only: another topic would never hear of anything.
    condition     = alltrue([for arn in var.alarm_topic_arns : contains([var.home_region, var.recovery_region], try(split(":", arn)[3], ""))])
    error_message = "Every alarm topic must be in the home or in the recovery region."
  }
}

variable "restore_bucket_names" {
  description = "Buckets of this account in which restore may make raw disk images, under any key: name none that holds archives. Null: every bucket of this account. Empty: none."
  type        = list(string)
  default     = []

  validation {
    condition     = alltrue([for name in coalesce(var.restore_bucket_names, []) : can(regex("^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$", name))])
    error_message = "Every bucket of raw images must be the name of a bucket, without s3:// and without a key."
  }
}

variable "trusted_role_arns" {
  description = "Roles, mostly of other accounts (modules/trust), that functions may assume to read a source or to write a target."
  type        = list(string)
  default     = []

  validation {
    condition     = alltrue([for arn in var.trusted_role_arns : can(regex("^arn:[a-z-]+:iam::[0-9]{12}:role/[^*?]+$", arn))])
    error_message = "Every trusted role must be the full ARN of one role, without wildcards."
  }
}

variable "tags" {
  description = "Tags of every resource, beside Project and ManagedBy."
  type        = map(string)
  default     = {}

  validation {
    condition     = length(setintersection(keys(var.tags), ["Project", "ManagedBy"])) == 0
    error_message = "The tags Project and ManagedBy are set already."
  }
}

variable "force_destroy" {
  description = "Whether destroying the deployment also destroys buckets that hold objects. Archives are lost."
  type        = bool
  default     = false
}

variable "backups" {
  description = <<-EOT
    Backups by tag (docs/tags.md), in each of the two Regions:
    - backup: make backups at each of the times on the weekdays. Off, the machine can still be started by hand.
    - replicate: copy backups where their tags want them, when they are completed and every replicate_minutes.
    - expire: delete backups that are due, every day at expire_at. Off, the machine can still be started by hand.
    - times, weekdays, time_zone: the slots of backups, and the zone in which days begin and end.
    - expire_at: time of day of expire, in the same zone.
    - retention: how long backups are kept whose tags do not say: days as 7d, and tiers as 7d 4w 12m.
    - keep_newest: good backups of a volume that stay whatever their dates say.
    - act_at_once: delete what is due without having marked it in an earlier run.
    - allow_as_of: let whoever starts a run say what day it is.
    - tag_names: other keys for the tags, by what they are for: backup, retention, destinations, keep, delete_on, type,
      source_snapshot, source_instance, source_volume, source_device, source_region.
    - destinations: places for copies that are more than a Region: another key or retention, by the name that tags use.
  EOT
  type = object({
    backup    = optional(bool, false)
    replicate = optional(bool, false)
    expire    = optional(bool, false)
    times     = optional(list(string), ["01:00"])
    weekdays  = optional(list(string), ["MON", "TUE", "WED", "THU", "FRI", "SAT", "SUN"])
    time_zone = optional(string, "UTC")
    expire_at = optional(string, "05:00")

    replicate_minutes = optional(number, 15)

    retention   = optional(string, "7d")
    keep_newest = optional(number, 1)
    act_at_once = optional(bool, false)
    allow_as_of = optional(bool, false)
    tag_names   = optional(map(string), {})
    destinations = optional(map(object({
      region      = string
      kms_key_arn = optional(string)
      retention   = optional(string)
    })), {})
  })
  default = {}
}
