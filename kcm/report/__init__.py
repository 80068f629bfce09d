"""The pages of kcm: one template, Vega-Lite charts drawn as SVG, plain sentences; no network and no server needed."""
