FROM scratch
ENV A=${}
ENV B=${{x}}
