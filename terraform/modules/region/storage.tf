# Two buckets: records of jobs and of what runs, which expire, and archives, which never do.

resource "aws_s3_bucket" "work" {
  bucket        = local.bucket_names.work
  force_destroy = var.force_destroy
  tags          = local.tags
}

resource "aws_s3_bucket" "archive" {
  bucket        = local.bucket_names.archive
  force_destroy = var.force_destroy
  tags          = local.tags
}

locals {
  buckets = {
    work    = aws_s3_bucket.work
    archive = aws_s3_bucket.archive
  }
}

resource "aws_s3_bucket_public_access_block" "this" {
  for_each = local.buckets

  bucket                  = each.value.id
  block_public_acls       = true
  block_public_policy     = true
  ignore_public_acls      = true
  restrict_public_buckets = true
}

resource "aws_s3_bucket_ownership_controls" "this" {
  for_each = local.buckets

  bucket = each.value.id

  rule {
    object_ownership = "BucketOwnerEnforced"
  }
}

resource "aws_s3_bucket_server_side_encryption_configuration" "this" {
  for_each = local.buckets

  bucket = each.value.id

  rule {
    bucket_key_enabled = var.storage_kms_key_arn != null

    apply_server_side_encryption_by_default {
      sse_algorithm     = var.storage_kms_key_arn == null ? "AES256" : "aws:kms"
      kms_master_key_id = var.storage_kms_key_arn
    }
  }
}

# An overwritten or deleted archive object can be brought back.
resource "aws_s3_bucket_versioning" "archive" {
  bucket = aws_s3_bucket.archive.id

  versioning_configuration {
    status = "Enabled"
  }
}

resource "aws_s3_bucket_lifecycle_configuration" "work" {
  bucket = aws_s3_bucket.work.id

  rule {
    id     = "abort-incomplete-uploads"
    status = "Enabled"

    filter {}

    abort_incomplete_multipart_upload {
      days_after_initiation = 7
    }
  }

  rule {
    id     = "expire-job-records"
    status = "Enabled"

    filter {
      prefix = "jobs/"
    }

    expiration {
      days = var.job_retention_in_days
    }
  }

  # What a worker leaves that died: nobody goes by it after a minute and a half.
  rule {
    id     = "expire-leases-of-workers"
    status = "Enabled"

    filter {
      prefix = "running/leases/"
    }

    expiration {
      days = 1
    }
  }

  # A job may be resumed for as long as its records are there, at the speed that it was given.
  rule {
    id     = "expire-speeds-of-jobs"
    status = "Enabled"

    filter {
      prefix = "running/speeds/"
    }

    expiration {
      days = var.job_retention_in_days
    }
  }
}

resource "aws_s3_bucket_lifecycle_configuration" "archive" {
  bucket = aws_s3_bucket.archive.id

  rule {
    id     = "abort-incomplete-uploads"
    status = "Enabled"

    filter {}

    abort_incomplete_multipart_upload {
      days_after_initiation = 7
    }
  }

  # S3 wants versioning to be settled before rules of a versioned bucket.
  depends_on = [aws_s3_bucket_versioning.archive]
}

locals {
  # Composed, not read from the roles: the bucket is there before them.
  writer_roles = concat(
    [for name in keys(local.functions) : "${var.name_prefix}-${replace(name, "_", "-")}-${local.region}"],
    [for name in values(local.machine_names) : "${name}-machine-${local.region}"],
  )
}

data "aws_iam_policy_document" "bucket" {
  for_each = local.bucket_names

  statement {
    sid       = "OnlyOverTls"
    effect    = "Deny"
    actions   = ["s3:*"]
    resources = ["arn:${local.partition}:s3:::${each.value}", "arn:${local.partition}:s3:::${each.value}/*"]

    principals {
      type        = "*"
      identifiers = ["*"]
    }

    condition {
      test     = "Bool"
      variable = "aws:SecureTransport"
      values   = ["false"]
    }
  }

  # Records of jobs decide what is deleted and what is proved: nobody but the deployment writes them, an
  # administrator neither. Each role's own policy says below which prefix. Expiry needs no permission. The speed of a
  # job, below running/speeds/, is the operators' own, and decides about nothing else.
  dynamic "statement" {
    for_each = each.key == "work" ? ["writers"] : []

    content {
      sid       = "OnlyTheDeploymentWrites"
      effect    = "Deny"
      actions   = ["s3:DeleteObject", "s3:DeleteObjectVersion", "s3:PutObject", "s3:PutObjectTagging", "s3:ReplicateObject"]
      resources = [for prefix in ["jobs", "running/leases"] : "arn:${local.partition}:s3:::${each.value}/${prefix}/*"]

      principals {
        type        = "*"
        identifiers = ["*"]
      }

      condition {
        test     = "ArnNotEquals"
        variable = "aws:PrincipalArn"
        values   = [for name in local.writer_roles : "arn:${local.partition}:iam::${local.account}:role/${name}"]
      }
    }
  }
}

resource "aws_s3_bucket_policy" "this" {
  for_each = local.buckets

  bucket = each.value.id
  policy = data.aws_iam_policy_document.bucket[each.key].json

  # Both change the bucket's policy status; in parallel S3 refuses one of them (OperationAborted).
  depends_on = [aws_s3_bucket_public_access_block.this]
}
