output "role_arn" {
  description = "ARN of the role: role_arn of a job's source or target, and one of the deployment's trusted_role_arns."
  value       = aws_iam_role.this.arn
}

output "external_id" {
  description = "What a job must name as external_id together with role_arn."
  value       = var.external_id
}
