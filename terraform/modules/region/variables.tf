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
