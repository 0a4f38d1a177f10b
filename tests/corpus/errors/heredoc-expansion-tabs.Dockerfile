FROM scratch
COPY <<-EOF /x
	line 1
	value: ${X^^}
	EOF
