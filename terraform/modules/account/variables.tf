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

variable "tags" {
  description = "Tags of every resource."
  type        = map(string)
  default     = {}
}
