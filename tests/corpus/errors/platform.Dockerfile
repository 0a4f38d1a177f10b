FROM --platform=linux/amd46/v1/x alpine
