"""What a picture is worth: metrics, protocols and pictures to look at."""
