output "operator_policy_arn" {
  description = "ARN of the policy of those who run jobs."
  value       = aws_iam_policy.operator.arn
}

output "uploader_policy_arn" {
  description = "ARN of the policy of those who upload disk images from their own machines."
  value       = aws_iam_policy.uploader.arn
}

output "archiver_policy_arn" {
  description = "ARN of the policy of those who archive disk images from their own machines."
  value       = aws_iam_policy.archiver.arn
}
