resource "aws_lambda_function" "this" {
  function_name    = var.name
  description      = var.description
  role             = aws_iam_role.this.arn
  filename         = var.source_path
  source_code_hash = fileexists(var.source_path) ? filebase64sha256(var.source_path) : null
  handler          = var.handler
  runtime          = var.runtime
  architectures    = [var.architecture]
  memory_size      = var.memory_mb
  timeout          = var.timeout_seconds
  layers           = var.layer_arns
  kms_key_arn      = var.kms_key_arn
  tags             = var.tags

  environment {
    variables = var.environment
  }

  tracing_config {
    mode = var.tracing ? "Active" : "PassThrough"
  }

  lifecycle {
    precondition {
      condition     = fileexists(var.source_path)
      error_message = "The code of function ${var.name} is missing at ${var.source_path}. Run scripts/build first: a plan never builds."
    }
  }

  # The group must be there before the first invocation: else Lambda makes one without retention and key.
  # The policy must be there before the first invocation: else the first run of a schedule fails.
  depends_on = [aws_cloudwatch_log_group.this, aws_iam_role_policy.this]
}

resource "aws_cloudwatch_log_group" "this" {
  name              = "/aws/lambda/${var.name}"
  retention_in_days = var.log_retention_in_days
  kms_key_id        = var.kms_key_arn
  tags              = var.tags
}
