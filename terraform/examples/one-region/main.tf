# Everything in one region. Jobs still copy to and from any region; but where this one is down, none runs.

terraform {
  required_version = ">= 1.9"

  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = ">= 5.100"
    }
  }
}

variable "home_region" {
  description = "Region where jobs run."
  type        = string
  default     = "us-east-1"
}

variable "force_destroy" {
  description = "Whether destroying the deployment also destroys buckets that hold objects."
  type        = bool
  default     = false
}

provider "aws" {
  region = var.home_region
}

module "home" {
  source = "../../modules/region"

  # All variables of modules/region can be given here; the first three have no default.
  name_prefix     = "blockferry"
  artifacts_dir   = "${path.root}/../../../build"
  definitions_dir = "${path.module}/../../../statemachines"
  force_destroy   = var.force_destroy
}

module "account" {
  source = "../../modules/account"

  name_prefix = "blockferry"
  regions     = [var.home_region]
}

output "start_commands" {
  description = "A command for each operation. They run in any folder; put your own snapshot or image and Region in."
  value       = module.home.start_commands
}

output "operator_policy_arn" {
  description = "ARN of the policy to attach to the roles of those who run jobs."
  value       = module.account.operator_policy_arn
}

output "uploader_policy_arn" {
  description = "ARN of the policy to attach to the roles of those who upload disk images from their own machines."
  value       = module.account.uploader_policy_arn
}

output "archiver_policy_arn" {
  description = "ARN of the policy to attach to the roles of those who archive disk images from their own machines."
  value       = module.account.archiver_policy_arn
}
