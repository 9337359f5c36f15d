variable "name_prefix" {
  description = "First part of every name, the same as in the regions."
  type        = string

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{0,22}[a-z0-9]$", var.name_prefix)) && !strcontains(var.name_prefix, "--")
    error_message = "The name prefix must have 2 to 24 lower-case letters, digits and single hyphens, begin with a letter and not end with a hyphen: it is part of bucket names."
  }
}

variable "regions" {
  description = "Regions that the operator may work in."
  type        = set(string)

  validation {
    condition     = length(var.regions) > 0
    error_message = "Name at least one region."
  }
}

variable "archive_bucket_names" {
  description = "Buckets of this account in which archives may be written, beside the archive buckets of this deployment. Null: every bucket of this account."
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
  default     = []

  validation {
    condition     = alltrue([for arn in coalesce(var.archive_kms_key_arns, []) : can(regex("^arn:[a-z-]+:kms:[a-z0-9-]+:[0-9]{12}:key/[a-zA-Z0-9-]+$", arn))])
    error_message = "Every key of archives must be the ARN of a KMS key, not of an alias: policies do not follow aliases."
  }
}

variable "tags" {
  description = "Tags of every resource."
  type        = map(string)
  default     = {}
}
