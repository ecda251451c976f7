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
