# Only the region is set here. Credentials, endpoints and everything else come from the environment
# (AWS_PROFILE, AWS_ACCESS_KEY_ID, AWS_ENDPOINT_URL, ...), so the same root deploys to an account and to
# the local cloud.

provider "aws" {
  region = var.home_region
}

provider "aws" {
  alias  = "recovery"
  region = var.recovery_region
}
