{{/* The objects of a small daemon beside the detector. Of a dict: root, name, args, port, values, secret (a name, or empty),
     egress (ports beside those of the brokers), partOf (what the monitoring selects, or empty). */}}
{{- define "detector.follower" -}}
{{- $root := .root -}}
apiVersion: apps/v1
kind: StatefulSet
metadata:
  name: detector-{{ .name }}
  namespace: {{ $root.Release.Namespace }}
  labels: {app.kubernetes.io/name: detector-{{ .name }}}
spec:
  serviceName: detector-{{ .name }}
  {{- if hasKey .values "replicas" }}
  podManagementPolicy: Parallel
  {{- end }}
  replicas: {{ .values.replicas | default 1 }}
  selector: {matchLabels: {app.kubernetes.io/name: detector-{{ .name }}}}
  template:
    metadata:
      labels: {app.kubernetes.io/name: detector-{{ .name }}}
      annotations:
        checksum/config: {{ $root.Values.config | toYaml | sha256sum }}
    spec:
      serviceAccountName: detector
      automountServiceAccountToken: false
      {{- include "detector.pullSecrets" $root | nindent 6 }}
      terminationGracePeriodSeconds: {{ $root.Values.terminationGracePeriodSeconds }}
      securityContext: {{- include "detector.podSecurity" $root | nindent 8 }}
      containers:
        - name: detector
          image: {{ include "detector.image" (dict "image" $root.Values.image "chart" $root.Chart) }}
          imagePullPolicy: {{ $root.Values.image.pullPolicy }}
          args: {{- .args | toYaml | nindent 12 }}
          env:
            - {name: DETECTOR_CONFIG, value: /etc/detector/config.yaml}
            - name: DETECTOR_INSTANCE
              valueFrom: {fieldRef: {fieldPath: metadata.name}}
          ports:
            - {name: http, containerPort: {{ .port }}}
          {{- include "detector.probes" $root | nindent 10 }}
          resources: {{- .values.resources | toYaml | nindent 12 }}
          terminationMessagePolicy: FallbackToLogsOnError
          securityContext: {{- include "detector.containerSecurity" $root | nindent 12 }}
          volumeMounts:
            - {name: config, mountPath: /etc/detector, readOnly: true}
            - {name: tmp, mountPath: /tmp}
            {{- if $root.Values.kafkaSecret }}
            - {name: kafka, mountPath: /run/secrets/kafka, readOnly: true}
            {{- end }}
            {{- if .secret }}
            - {name: {{ .name }}, mountPath: /run/secrets/{{ .name }}, readOnly: true}
            {{- end }}
      volumes:
        - name: config
          configMap: {name: detector-config}
        - name: tmp
          emptyDir: {sizeLimit: 64Mi}
        {{- with $root.Values.kafkaSecret }}
        - name: kafka
          secret: {secretName: {{ . }}, defaultMode: 0440}
        {{- end }}
        {{- if .secret }}
        - name: {{ .name }}
          secret: {secretName: {{ .secret }}, defaultMode: 0440}
        {{- end }}
---
apiVersion: v1
kind: Service
metadata:
  name: detector-{{ .name }}
  namespace: {{ $root.Release.Namespace }}
  labels:
    app.kubernetes.io/name: detector-{{ .name }}
    {{- with .partOf }}
    # What the monitoring selects, and the name of its job.
    app.kubernetes.io/part-of: {{ . }}
    {{- end }}
spec:
  clusterIP: None
  publishNotReadyAddresses: true
  selector: {app.kubernetes.io/name: detector-{{ .name }}}
  ports:
    - {name: http, port: {{ .port }}, targetPort: http}
{{- if $root.Values.networkPolicy.enabled }}
---
{{ include "detector.networkPolicy" (dict "root" $root "name" (printf "detector-%s" .name) "egress" .egress) }}
{{- end }}
{{- end }}
