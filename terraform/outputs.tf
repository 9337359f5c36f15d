locals {
  regions = {
    (var.home_region)     = module.home
    (var.recovery_region) = module.recovery
  }
}

output "regions" {
  description = "The regions of the deployment: home, then recovery."
  value       = [var.home_region, var.recovery_region]
}

output "state_machines" {
  description = "ARN of each state machine, by region and operation."
  value       = { for name, region in local.regions : name => region.state_machines }
}

output "functions" {
  description = "ARN of each function, by region and name."
  value       = { for name, region in local.regions : name => region.functions }
}

output "buckets" {
  description = "Names of the work and the archive bucket, by region."
  value       = { for name, region in local.regions : name => region.buckets }
}

output "dashboards" {
  description = "Name of the dashboard, by region. Null where there is none."
  value       = { for name, region in local.regions : name => region.dashboard }
}

output "start_commands" {
  description = "A command for each operation, by region and operation. They run in any folder; put your own snapshot or image and Region in."
  value       = { for name, region in local.regions : name => region.start_commands }
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
