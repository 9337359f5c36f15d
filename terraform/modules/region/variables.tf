variable "name_prefix" {
  description = "First part of every name, shared by all regions of one deployment."
  type        = string

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{0,22}[a-z0-9]$", var.name_prefix)) && !strcontains(var.name_prefix, "--")
    error_message = "The name prefix must have 2 to 24 lower-case letters, digits and single hyphens, begin with a letter and not end with a hyphen: it is part of bucket names."
  }
}

variable "artifacts_dir" {
  description = "Folder that scripts/build wrote: functions/<name>.zip and layer-<runtime>-<architecture>.zip."
  type        = string
}

variable "definitions_dir" {
  description = "Folder of the state machine definitions, <name>.asl.json."
  type        = string
}

variable "lambda" {
  description = <<-EOT
    How the functions run:
    - runtime: Lambda runtime. The layer is built for it.
    - architecture: arm64 or x86_64. The layer is built for it.
    - log_level: lowest level that functions log: DEBUG, INFO, WARNING, ERROR or CRITICAL.
  EOT
  type = object({
    runtime      = optional(string, "python3.13")
    architecture = optional(string, "arm64")
    log_level    = optional(string, "INFO")
  })
  default = {}

  validation {
    condition     = can(regex("^python3\\.1[1-9]$", var.lambda.runtime))
    error_message = "The runtime must be python3.11 or later, for example python3.13."
  }

  validation {
    condition     = contains(["arm64", "x86_64"], var.lambda.architecture)
    error_message = "The architecture must be arm64 or x86_64."
  }

  validation {
    condition     = contains(["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"], var.lambda.log_level)
    error_message = "The log level must be DEBUG, INFO, WARNING, ERROR or CRITICAL."
  }
}

variable "observability" {
  description = <<-EOT
    What can be seen of the running system:
    - tracing: send X-Ray traces.
    - alarms: raise alarms for failed jobs and a failing sweeper.
    - dashboard: one CloudWatch dashboard per region.
    - state_machine_log_level: ALL, ERROR, FATAL or OFF.
  EOT
  type = object({
    tracing                 = optional(bool, true)
    alarms                  = optional(bool, true)
    dashboard               = optional(bool, true)
    state_machine_log_level = optional(string, "ERROR")
  })
  default = {}

  validation {
    condition     = contains(["ALL", "ERROR", "FATAL", "OFF"], var.observability.state_machine_log_level)
    error_message = "The log level of the state machines must be ALL, ERROR, FATAL or OFF."
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
  description = "Days that plans, digests and receipts of jobs stay in the work bucket."
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

variable "storage_kms_key_arn" {
  description = "Key of this region for buckets, logs, environments and execution history. Null: keys that AWS owns."
  type        = string
  default     = null

  validation {
    condition     = var.storage_kms_key_arn == null || can(regex("^arn:[a-z-]+:kms:[a-z0-9-]+:[0-9]{12}:key/[a-zA-Z0-9-]+$", var.storage_kms_key_arn))
    error_message = "The storage key must be the ARN of a KMS key, not of an alias."
  }
}

variable "snapshot_kms_key_arns" {
  description = "Keys of snapshots that functions may use through EBS, in any region and account. Null: every key of this account. Empty: none."
  type        = list(string)
  default     = null

  validation {
    condition     = alltrue([for arn in coalesce(var.snapshot_kms_key_arns, []) : can(regex("^arn:[a-z-]+:kms:[a-z0-9-]+:[0-9]{12}:key/[a-zA-Z0-9-]+$", arn))])
    error_message = "Every snapshot key must be the ARN of a KMS key, not of an alias: policies do not follow aliases."
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
  description = "Roles, mostly of other accounts, that functions may assume to read a source or to write a target."
  type        = list(string)
  default     = []

  validation {
    condition     = alltrue([for arn in var.trusted_role_arns : can(regex("^arn:[a-z-]+:iam::[0-9]{12}:role/[^*?]+$", arn))])
    error_message = "Every trusted role must be the full ARN of one role, without wildcards."
  }
}

variable "permissions_boundary" {
  description = "ARN of the permissions boundary of every role."
  type        = string
  default     = null
}

variable "alarm_topic_arns" {
  description = "SNS topics of this region that alarms notify."
  type        = list(string)
  default     = []
}

variable "force_destroy" {
  description = "Whether destroying the deployment also destroys buckets that hold objects. Archives are lost."
  type        = bool
  default     = false
}

variable "tags" {
  description = "Tags of every resource."
  type        = map(string)
  default     = {}
}

variable "backups" {
  description = <<-EOT
    Backups by tag (docs/tags.md):
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

  validation {
    condition     = length(var.backups.times) > 0 && alltrue([for time in concat(var.backups.times, [var.backups.expire_at]) : can(regex("^([01][0-9]|2[0-3]):[0-5][0-9]$", time))])
    error_message = "Times of backups must be times of day such as 01:30, at least one."
  }

  validation {
    condition     = length(var.backups.weekdays) > 0 && alltrue([for day in var.backups.weekdays : contains(["MON", "TUE", "WED", "THU", "FRI", "SAT", "SUN"], day)])
    error_message = "Weekdays of backups must be some of MON, TUE, WED, THU, FRI, SAT and SUN."
  }

  validation {
    condition     = can(regex("^[A-Za-z_]+(/[A-Za-z0-9_+-]+)*$", var.backups.time_zone))
    error_message = "The time zone must be a name of the IANA database, for example UTC or Europe/Berlin."
  }

  validation {
    condition     = alltrue([for kept in concat([var.backups.retention], [for place in values(var.backups.destinations) : place.retention if place.retention != null]) : can(regex("^[1-9][0-9]{0,4}[dwmy]?( [1-9][0-9]{0,4}[dwmy])*$", kept))])
    error_message = "Every retention must be a number of days such as 14, or tiers such as 7d 4w 12m 3y."
  }

  validation {
    condition     = var.backups.keep_newest >= 0 && var.backups.keep_newest <= 1000 && floor(var.backups.keep_newest) == var.backups.keep_newest
    error_message = "The number of newest backups that stay must be a whole number, 0 to 1000."
  }

  validation {
    condition     = var.backups.replicate_minutes >= 5 && var.backups.replicate_minutes <= 1440 && floor(var.backups.replicate_minutes) == var.backups.replicate_minutes
    error_message = "The minutes between two runs of replicate must be a whole number, 5 to 1440."
  }

  validation {
    condition     = alltrue([for name in keys(var.backups.tag_names) : contains(["backup", "retention", "destinations", "keep", "delete_on", "type", "source_snapshot", "source_instance", "source_volume", "source_device", "source_region"], name)])
    error_message = "Names of tags are given for backup, retention, destinations, keep, delete_on, type, source_snapshot, source_instance, source_volume, source_device and source_region only."
  }

  validation {
    condition     = alltrue([for name in keys(var.backups.destinations) : can(regex("^[a-z0-9]+(-[a-z0-9]+)*$", name))])
    error_message = "Names of destinations must have lower-case letters, digits and single hyphens, as a tag names them."
  }

  validation {
    # An environment of a function has 4 KB.
    condition     = length(jsonencode(var.backups)) <= 3000
    error_message = "The settings of backups are too long for a function's environment: name fewer destinations."
  }
}
