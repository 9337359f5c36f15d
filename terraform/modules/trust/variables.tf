variable "name" {
  description = "Name of the role, the same in every account that many jobs reach."
  type        = string
  default     = "blockferry-access"

  validation {
    condition     = can(regex("^[\\w+=,.@-]{1,64}$", var.name))
    error_message = "A role name has 1 to 64 letters, digits and characters of +=,.@-_."
  }
}

variable "trusted" {
  description = <<-EOT
    The deployment that may assume the role:
    - account_id: the account it runs in.
    - name_prefix: its name prefix. Only its function roles, <name_prefix>-*, are trusted.
  EOT
  # Terraform drops what an object type does not have: a misspelt attribute would leave the default in force without a
  # word, here and with required_tag even a role that reads more than it was meant to. So the names are checked.
  type = any

  validation {
    condition     = length(setsubtract(try(keys(var.trusted), []), ["account_id", "name_prefix"])) == 0
    error_message = "There is no ${join(" and no ", setsubtract(try(keys(var.trusted), []), ["account_id", "name_prefix"]))} in trusted, only account_id and name_prefix."
  }

  validation {
    condition     = can(regex("^[0-9]{12}$", var.trusted.account_id))
    error_message = "The trusted account must be an account id of 12 digits."
  }

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{0,22}[a-z0-9]$", try(var.trusted.name_prefix, "blockferry"))) && !strcontains(try(var.trusted.name_prefix, "blockferry"), "--")
    error_message = "The trusted name prefix must have 2 to 24 lower-case letters, digits and single hyphens, begin with a letter and not end with a hyphen."
  }
}

variable "external_id" {
  description = "What a job must name as external_id. Not a secret, but nobody else's deployment knows it by chance."
  type        = string
  nullable    = false

  validation {
    condition     = can(regex("^[\\w+=,.@:/-]{8,}$", var.external_id)) && length(var.external_id) <= 1224
    error_message = "The external id must have 8 to 1224 letters, digits and characters of +=,.@:/-_."
  }
}

variable "source_side" {
  description = <<-EOT
    Lets jobs read snapshots of this account. Null: they may not.
    - regions: regions of the snapshots.
    - required_tag: only snapshots with this tag (key and value) may be read. Null: all that the account sees.
    - kms_key_arns: keys of encrypted snapshots, beyond the account's aws/ebs keys, which need no permission.
    - image_bucket_names: buckets with disk images that may be read, and decrypted with the same keys.
  EOT
  # As for trusted.
  type    = any
  default = null

  validation {
    condition     = length(setsubtract(try(keys(var.source_side), []), ["regions", "required_tag", "kms_key_arns", "image_bucket_names"])) == 0
    error_message = "There is no ${join(" and no ", setsubtract(try(keys(var.source_side), []), ["regions", "required_tag", "kms_key_arns", "image_bucket_names"]))} in source_side, only regions, required_tag, kms_key_arns and image_bucket_names."
  }

  validation {
    condition     = var.source_side == null || can(sort(var.source_side.regions)[0])
    error_message = "Name at least one region whose snapshots may be read, in a list."
  }

  validation {
    condition     = try(var.source_side.required_tag, null) == null || try(toset(keys(var.source_side.required_tag)) == toset(["key", "value"]), false)
    error_message = "The required tag has a key and a value, and nothing else."
  }

  validation {
    condition     = can(sort(try(var.source_side.image_bucket_names, [])))
    error_message = "The image buckets of the source side must be a list of names."
  }

  validation {
    condition     = can(sort(try(var.source_side.kms_key_arns, []))) && alltrue([for arn in try(sort(var.source_side.kms_key_arns), []) : can(regex("^arn:[a-z-]+:kms:[a-z0-9-]+:[0-9]{12}:key/[a-zA-Z0-9-]+$", arn))])
    error_message = "Every key of the source side must be the ARN of a KMS key, not of an alias."
  }
}

variable "target_side" {
  description = <<-EOT
    Lets jobs make snapshots in this account. Null: they may not.
    - regions: regions of the new snapshots.
    - kms_key_arns: keys for encrypted snapshots, beyond the account's aws/ebs keys, which need no permission.
  EOT
  # As for trusted.
  type    = any
  default = null

  validation {
    condition     = length(setsubtract(try(keys(var.target_side), []), ["regions", "kms_key_arns"])) == 0
    error_message = "There is no ${join(" and no ", setsubtract(try(keys(var.target_side), []), ["regions", "kms_key_arns"]))} in target_side, only regions and kms_key_arns."
  }

  validation {
    condition     = var.target_side == null || can(sort(var.target_side.regions)[0])
    error_message = "Name at least one region in which snapshots may be made, in a list."
  }

  validation {
    condition     = can(sort(try(var.target_side.kms_key_arns, []))) && alltrue([for arn in try(sort(var.target_side.kms_key_arns), []) : can(regex("^arn:[a-z-]+:kms:[a-z0-9-]+:[0-9]{12}:key/[a-zA-Z0-9-]+$", arn))])
    error_message = "Every key of the target side must be the ARN of a KMS key, not of an alias."
  }

  validation {
    condition     = var.target_side != null || var.source_side != null || var.archive_side != null
    error_message = "Give source_side, target_side or archive_side: a role that may do none of it is of no use."
  }
}

variable "archive_side" {
  description = <<-EOT
    Lets jobs write archives into buckets of this account, and verify and restore them. Null: they may not.
    - bucket_names: the buckets.
    - regions: regions of the buckets, in which their keys may be used; needed with kms_key_arns only.
    - kms_key_arns: keys that objects are encrypted with, used through S3 only.
  EOT
  # As for trusted.
  type    = any
  default = null

  validation {
    condition     = length(setsubtract(try(keys(var.archive_side), []), ["bucket_names", "regions", "kms_key_arns"])) == 0
    error_message = "There is no ${join(" and no ", setsubtract(try(keys(var.archive_side), []), ["bucket_names", "regions", "kms_key_arns"]))} in archive_side, only bucket_names, regions and kms_key_arns."
  }

  validation {
    condition     = var.archive_side == null || (can(sort(var.archive_side.bucket_names)[0]) && alltrue([for name in try(sort(var.archive_side.bucket_names), []) : can(regex("^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$", name))]))
    error_message = "Name at least one bucket for archives, in a list, without s3:// and without a key."
  }

  validation {
    condition     = can(sort(try(var.archive_side.kms_key_arns, []))) && alltrue([for arn in try(sort(var.archive_side.kms_key_arns), []) : can(regex("^arn:[a-z-]+:kms:[a-z0-9-]+:[0-9]{12}:key/[a-zA-Z0-9-]+$", arn))])
    error_message = "Every key of the archive side must be the ARN of a KMS key, not of an alias."
  }

  validation {
    condition     = length(try(var.archive_side.kms_key_arns, [])) == 0 || can(sort(var.archive_side.regions)[0])
    error_message = "Name the regions of the buckets of the archive side, in a list: their keys may be used there only."
  }
}

variable "permissions_boundary" {
  description = "ARN of the permissions boundary of the role."
  type        = string
  default     = null
}

variable "tags" {
  description = "Tags of every resource."
  type        = map(string)
  default     = {}
}
