variable "name" {
  description = "Name of the state machine."
  type        = string

  validation {
    condition     = can(regex("^[a-zA-Z0-9-_]{1,80}$", var.name))
    error_message = "A state machine name has 1 to 80 letters, digits, hyphens and underscores."
  }
}

variable "role_name" {
  description = "Name of the state machine's role. Roles are global, so it names the region too."
  type        = string

  validation {
    condition     = can(regex("^[\\w+=,.@-]{1,64}$", var.role_name))
    error_message = "A role name has 1 to 64 letters, digits and characters of +=,.@-_."
  }
}

variable "definition_file" {
  description = "Path of the .asl.json file. It is JSON before rendering too; its placeholders are function ARNs."
  type        = string

  validation {
    condition     = fileexists(var.definition_file)
    error_message = "There is no state machine definition at ${var.definition_file}."
  }
}

variable "function_arns" {
  description = "ARNs of the functions the machine invokes, by placeholder without its _arn suffix."
  type        = map(string)
}

variable "work" {
  description = "Where the machine reads plans and writes the results of its map runs: bucket ARN, and the key prefix of its jobs."
  type = object({
    bucket_arn = string
    prefix     = string
  })
}

variable "log_level" {
  description = "What the machine logs: ALL, ERROR, FATAL or OFF."
  type        = string
  default     = "ERROR"

  validation {
    condition     = contains(["ALL", "ERROR", "FATAL", "OFF"], var.log_level)
    error_message = "The log level of a state machine must be ALL, ERROR, FATAL or OFF."
  }
}

variable "log_execution_data" {
  description = "Whether logged events contain the inputs and outputs of states."
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

variable "tracing" {
  description = "Whether executions send X-Ray traces."
  type        = bool
  default     = true
}

variable "alarms" {
  description = "Whether failed, timed out and aborted executions raise alarms."
  type        = bool
  default     = true
}

variable "alarm_topic_arns" {
  description = "SNS topics of this region that alarms notify."
  type        = list(string)
  default     = []
}

variable "kms_key_arn" {
  description = "Key for definition, execution history and log group. Null: keys that AWS owns."
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
