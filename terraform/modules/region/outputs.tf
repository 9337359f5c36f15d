output "region" {
  description = "Region of everything below."
  value       = local.region
}

output "state_machines" {
  description = "ARN of each state machine, by operation."
  value       = { for operation, machine in module.machine : operation => machine.arn }
}

output "functions" {
  description = "ARN of each function, by name."
  value       = { for name, function in module.function : name => function.arn }
}

output "function_role_arns" {
  description = "ARN of each function's role, by name: what a role of another account trusts."
  value       = { for name, function in module.function : name => function.role_arn }
}

output "buckets" {
  description = "Names of the work and the archive bucket."
  value       = { for kind, bucket in local.buckets : kind => bucket.id }
}

output "layer_arn" {
  description = "ARN of the layer version that the functions use."
  value       = aws_lambda_layer_version.core.arn
}

output "dashboard" {
  description = "Name of the dashboard, or null."
  value       = one(aws_cloudwatch_dashboard.this[*].dashboard_name)
}

output "start_commands" {
  description = "A command for each operation, to be run in any folder. What is in capitals has to be filled in: SNAPSHOT, REGION, s3://BUCKET/KEY."
  value = {
    for operation in keys(module.machine) : operation => join(" ", compact([
      "blockferry ${operation} ${local.start_arguments[operation]}",
      "--region ${local.region}",
      var.name_prefix == "blockferry" ? "" : "--name-prefix ${var.name_prefix}",
    ]))
  }
}
