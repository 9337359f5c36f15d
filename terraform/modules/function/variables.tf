variable "name" {
  description = "Name of the function."
  type        = string

  validation {
    condition     = can(regex("^[a-zA-Z0-9-_]{1,64}$", var.name))
    error_message = "A function name has 1 to 64 letters, digits, hyphens and underscores."
  }
}

variable "role_name" {
  description = "Name of the function's role. Roles are global, so it names the region too."
  type        = string

  validation {
    condition     = can(regex("^[\\w+=,.@-]{1,64}$", var.role_name))
    error_message = "A role name has 1 to 64 letters, digits and characters of +=,.@-_."
  }
}

variable "description" {
  description = "What the function does, shown in the console."
  type        = string
}

variable "source_path" {
  description = "Path of the zip that scripts/build made."
  type        = string
}

variable "handler" {
  description = "Entry point of the function."
  type        = string
  default     = "handler.handler"
}

variable "runtime" {
  description = "Lambda runtime."
  type        = string

  validation {
    condition     = can(regex("^python3\\.1[1-9]$", var.runtime))
    error_message = "The runtime must be python3.11 or later, for example python3.13."
  }
}

variable "architecture" {
  description = "Instruction set of the function and of its layers."
  type        = string

  validation {
    condition     = contains(["arm64", "x86_64"], var.architecture)
    error_message = "The architecture must be arm64 or x86_64."
  }
}

variable "memory_mb" {
  description = "Memory in MB. 1769 MB is one whole vCPU."
  type        = number

  validation {
    condition     = var.memory_mb >= 128 && var.memory_mb <= 10240
    error_message = "Lambda offers 128 to 10240 MB of memory."
  }
}

variable "timeout_seconds" {
  description = "Seconds after which Lambda ends an invocation."
  type        = number

  validation {
    condition     = var.timeout_seconds >= 1 && var.timeout_seconds <= 900
    error_message = "Lambda allows a timeout of 1 to 900 seconds."
  }
}

variable "layer_arns" {
  description = "ARNs of the layer versions, in order."
  type        = list(string)
  default     = []

  validation {
    condition     = length(var.layer_arns) <= 5
    error_message = "Lambda allows at most five layers."
  }
}

variable "environment" {
  description = "Environment variables."
  type        = map(string)
  default     = {}
}

variable "policy_json" {
  description = "What the function may call beyond its own logs and traces, as a policy document."
  type        = string

  validation {
    condition     = can(jsondecode(var.policy_json))
    error_message = "The policy must be a JSON policy document."
  }
}

variable "tracing" {
  description = "Whether the function samples and sends X-Ray traces itself."
  type        = bool
  default     = true
}

variable "log_retention_in_days" {
  description = "Days that log events are kept."
  type        = number
  default     = 365

  validation {
    condition     = var.log_retention_in_days > 0
    error_message = "Logs must not be kept for ever: give a number of days that CloudWatch Logs accepts."
  }
}

variable "kms_key_arn" {
  description = "Key for the log group and the environment. Null: keys that AWS owns."
  type        = string
  default     = null
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
