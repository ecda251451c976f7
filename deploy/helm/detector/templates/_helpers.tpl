{{- define "detector.labels" -}}
app.kubernetes.io/name: detector
{{- end }}

{{- define "detector.image" -}}
{{ .image.repository }}:{{ .image.tag | default .chart.AppVersion }}
{{- end }}

{{/* What every pod may do: nothing but its work. */}}
{{- define "detector.podSecurity" -}}
runAsNonRoot: true
runAsUser: 10001
runAsGroup: 10001
fsGroup: 10001
seccompProfile: {type: RuntimeDefault}
{{- end }}

{{- define "detector.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end }}

{{- define "detector.volumes" -}}
- name: config
  configMap: {name: detector-config}
- name: models
  persistentVolumeClaim: {claimName: detector-models}
{{- end }}

{{- define "detector.pullSecrets" -}}
{{- with .Values.image.pullSecrets }}
imagePullSecrets:
{{- range . }}
  - name: {{ . }}
{{- end }}
{{- end }}
{{- end }}

{{/* The loop turns, whatever the broker does: an outage must not restart every pod. Ready: partitions assigned, state
     restored, model loaded. */}}
{{- define "detector.probes" -}}
startupProbe:
  httpGet: {path: /healthz, port: http}
  periodSeconds: 2
  failureThreshold: 60
livenessProbe:
  httpGet: {path: /healthz, port: http}
  periodSeconds: 10
  timeoutSeconds: 5
  failureThreshold: 3
readinessProbe:
  httpGet: {path: /readyz, port: http}
  periodSeconds: 5
  timeoutSeconds: 5
  failureThreshold: 1
{{- end }}

{{/* In: scrapes from the namespace of the monitoring (probes come from the node and are always let in). Out: names, the
     brokers, and the ports of `egress`. Of a dict: root, name, egress. */}}
{{- define "detector.networkPolicy" -}}
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata:
  name: {{ .name }}
  namespace: {{ .root.Release.Namespace }}
  labels: {app.kubernetes.io/name: {{ .name }}}
spec:
  podSelector: {matchLabels: {app.kubernetes.io/name: {{ .name }}}}
  policyTypes: [Ingress, Egress]
  ingress:
    - from:
        - namespaceSelector:
            matchLabels: {kubernetes.io/metadata.name: {{ .root.Values.networkPolicy.monitoringNamespace }}}
      ports:
        - {protocol: TCP, port: http}
  egress:
    - to:
        - namespaceSelector: {}
          podSelector: {matchLabels: {k8s-app: kube-dns}}
      ports:
        - {protocol: UDP, port: 53}
        - {protocol: TCP, port: 53}
    - ports:
        {{- range .root.Values.networkPolicy.brokerPorts }}
        - {protocol: TCP, port: {{ . }}}
        {{- end }}
    {{- with .egress }}
    - ports:
        {{- range . }}
        - {protocol: TCP, port: {{ . }}}
        {{- end }}
    {{- end }}
{{- end }}
